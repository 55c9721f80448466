"""What queues keep, as values: bindings, messages, and what becomes of a delivery.

Cheap to import: no SQL. Times are Unix milliseconds. Source: contract D.7, H-14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from amba_runtime import limits
from amba_runtime.outcome import LogLine, Outcome

Status = Literal["active", "paused"]
State = Literal["waiting", "delayed", "leased", "dead"]
Purged = Literal["dead", "waiting", "all"]
Source = Literal["api", "file"]
Reason = Literal["retries", "paused", "expired", "interrupted"]
"""Why a message is a dead letter: it failed too often; its queue was paused when it became due;
nobody took it for 14 days; deliveries of it ended without an outcome again and again."""

FAN_OUT = "fan-out:"
"""Queues of this prefix need no binding: the rest is the function. No binding can have a colon."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a queue is delivered.

    Attributes:
        batch_wait_ms: a batch waits so long for more, from when its first message is due.
        consumers: deliveries at once; in order of availability only with one.
        retries: beside the first delivery.
        backoff_ms: before the first retry.
    """

    batch_size: int = 1
    batch_wait_ms: int = 0
    consumers: int = limits.QUEUE_CONSUMERS_USUAL.value
    retries: int = limits.QUEUE_RETRIES_USUAL.value
    backoff_ms: int = limits.QUEUE_BACKOFF_MS.value


@dataclass(frozen=True, slots=True)
class Binding:
    """Which function consumes a queue, and how. `id` is "" for one of `FAN_OUT`."""

    id: str
    queue: str
    function: str
    status: Status
    settings: Settings
    source: Source
    created_ms: int
    updated_ms: int

    @property
    def active(self) -> bool:
        """What is due is delivered."""
        return self.status == "active"


def fan_out(queue: str) -> Binding | None:
    """The binding of an internal queue; None for any other."""
    function = queue.removeprefix(FAN_OUT)
    if function == queue or not function:
        return None
    return Binding("", queue, function, "active", Settings(), "api", 0, 0)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A message to be kept. `payload` is JSON text, passed on verbatim."""

    id: str
    payload: str
    created_ms: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class Job:
    """A message as a list shows it. `due_ms` of a leased one is the end of its lease."""

    id: str
    state: State
    payload: str
    attempts: int
    failures: int
    created_ms: int
    due_ms: int
    reason: str | None
    error: str | None
    dead_ms: int | None


@dataclass(frozen=True, slots=True)
class Depth:
    """Messages of one queue by state.

    Attributes:
        oldest_ms: when the one that waits longest became due; None where none waits.
    """

    project_id: str
    queue: str
    waiting: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    oldest_ms: int | None = None


# --- a delivery ---


@dataclass(frozen=True, slots=True)
class Message:
    """One that is leased.

    Attributes:
        due_ms: since when it was due.
        attempts: deliveries of it, this one included.
        failures: those that ended badly.
        generation: of its lease: whoever settles it names it.
    """

    seq: int
    id: str
    payload: str
    created_ms: int
    due_ms: int
    attempts: int
    failures: int
    generation: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Who takes messages, for which function, and until when they are nobody else's."""

    owner: str
    function: str
    now_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look at a queue found.

    Attributes:
        binding: None where the queue has none.
        messages: leased, in order of availability.
        next_ms: when to look again: now or earlier where more is due; None where nothing is left.
        buried: messages that became dead letters by the look: see `queue_leases.take`.
    """

    binding: Binding | None
    messages: tuple[Message, ...]
    next_ms: int | None
    buried: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """A message that is tried again."""

    message: Message
    due_ms: int
    error: str


@dataclass(frozen=True, slots=True)
class Dead:
    """A message that is not."""

    message: Message
    reason: Reason
    error: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of each message of a batch."""

    acked: tuple[Message, ...] = ()
    again: tuple[Again, ...] = ()
    dead: tuple[Dead, ...] = ()

    @property
    def count(self) -> int:
        """Messages in all."""
        return len(self.acked) + len(self.again) + len(self.dead)


# --- a delivery that is stored nowhere ---


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a handler said of one message. Args: delay_s: before it is tried again, if it said."""

    acked: bool
    delay_s: int | None = None


@dataclass(frozen=True, slots=True)
class DeliveredNow:
    """How a delivery on demand ended; `verdicts` by the message's id, in order."""

    request_id: str
    outcome: Outcome
    error: str
    ms: float
    verdicts: tuple[tuple[str, Verdict], ...]
    logs: tuple[LogLine, ...]
