"""The seam between us and whatever runs JavaScript: `Engine` starts, `Isolate` serves.

An engine is a plug: it knows nothing of HTTP servers, routing, pools or limits.
Everything that leaves an isolate goes through the `Surroundings` it was started with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from amba_runtime import entropy
from amba_runtime.callers import Callers
from amba_runtime.manifest import Bundle, Manifest
from amba_runtime.outcome import Ended, Event, Tell

if TYPE_CHECKING:  # `check --static` starts nothing, and need not load the wire
    from amba_runtime.message_room import Direction
    from amba_runtime.sandbox import Sandbox
    from amba_runtime.wire import Handler, Headers


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an isolate is given, and whom it tells.

    Attributes:
        egress: answers every `fetch()` the guest makes (absolute-form targets).
        storage: answers the `STORAGE` binding; None leaves it out.
        tell: lines and exceptions written after their invocation was answered; never raises.
        died: called once when an isolate that has described itself ends unasked, or by `kill`.
        mark: makes the name of the header by which an isolate tells us of an invocation one
            that no upstream and no other function can forge. A guest may come to know its own:
            it can lie about itself, and what it says is believed only as far as that.
        callers: whom a request may be said to come from; told of events that are delivered.
        database: answers the `EDGE_DB_PROXY` binding; None leaves it out.
    """

    egress: Handler
    storage: Handler | None
    tell: Callable[[str, Tell], None]
    died: Callable[[Ended], None]
    mark: str = field(default_factory=entropy.mark)
    callers: Callers = field(default_factory=Callers)
    database: Handler | None = None

    @property
    def tell_header(self) -> bytes:
        """The response header that holds what `Tell.parse` reads; never shown to a caller."""
        return f"amba-run-{self.mark}".encode()


@dataclass(frozen=True, slots=True)
class Description:
    """What a bundle turned out to be once it ran.

    Attributes:
        handlers: those of `fetch`, `scheduled`, `queue` that are callable, in this order.
        default: `object`, `function`, `class`, `none`, or `listener` (addEventListener form).
        startup: lines written while the module was evaluated.
        fault: what a getter or Proxy threw when it was asked for a handler; "" mostly.
    """

    handlers: tuple[str, ...]
    default: str
    startup: Tell
    fault: str = ""


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One message of a batch, as a guest gets it. Source: contract B.

    Attributes:
        attempts: deliveries of it so far, this one included.
        body: JSON text, passed on verbatim.
    """

    id: str
    timestamp_ms: int
    attempts: int
    body: str


GUEST_MODULE = "fn.mjs"
HOST_MODULES = ("shim\ufffd.mjs", "prelude.mjs", "subrequests.mjs", "guest.mjs")
"""What a bundle, and our modules around it, are called in stacks.

The first has the one export that is worth anything; its name is `config.UNSAYABLE` there.
"""


class Exchange(Protocol):
    """One request to a guest and its answer, streaming both ways with back-pressure.

    `begin` -> (`write`, `drain`)* -> `end` -> `head` -> (`take` or `read`)* -> `release`.
    `notify` has a callable called once, when the answer has begun or failed, in place of `head`.
    `cut` instead of `end` makes the guest's reading of the body fail; `abort` at any time ends
    its work on the request. `wire.Connection` is the real one.
    """

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def complete(self) -> bool: ...
    def begin(self, method: bytes, target: bytes, headers: bytes, length: int | None) -> None: ...
    def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def cut(self) -> None: ...
    async def drain(self) -> None: ...
    def notify(self, begun: Callable[[], None] | None) -> None: ...
    def head(self) -> asyncio.Future[None]: ...
    def take(self) -> bytes: ...
    async def read(self) -> bytes: ...
    def release(self) -> None: ...
    def abort(self) -> None: ...


class Socket(Protocol):
    """A WebSocket to a guest, message by message; `close_code` is set once it has ended.

    What of the guest's messages lies in our memory is held to `hold_to`'s account, until the
    next is asked for; where that has no room the socket ends with 1013.
    """

    @property
    def subprotocol(self) -> str | None: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def close_code(self) -> int | None: ...
    @property
    def close_reason(self) -> str: ...
    def hold_to(self, account: Direction) -> None: ...
    async def send(self, message: str | bytes) -> None: ...
    async def receive(self) -> str | bytes | None: ...
    async def close(self, code: int, reason: str) -> None: ...


class Refused(Exception):
    """A guest answered a WebSocket request with an ordinary response."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class Isolate(Protocol):
    """One loaded version, memory of its own. Raises wire.WireError where the engine is gone.

    `configure` gives text bindings new values, for later invocations. `pending` is how many
    promises given to `waitUntil` have not settled. `ping` returns once the thread that runs
    JavaScript is free. `cpu_s` is that thread's CPU time, `memory_bytes` what the isolate holds
    that it shares with nobody; None where the system does not say. Console lines of an event come
    to its `tell` while it runs: whoever gives one has them, however it ends. `kill` ends it at
    once: its `died` is told what it was given, and requests under way break off.
    """

    @property
    def alive(self) -> bool: ...
    async def describe(self) -> Description: ...
    def idle(self) -> Exchange | None: ...
    async def exchange(self, *, fresh: bool = False) -> Exchange: ...
    async def socket(
        self, target: bytes, headers: Headers, subprotocols: Sequence[str]
    ) -> Socket: ...
    async def scheduled(
        self, *, cron: str, scheduled_time_ms: int, tell: Tell | None = None
    ) -> Event: ...
    async def queue(
        self, *, queue: str, messages: Sequence[QueueMessage], tell: Tell | None = None
    ) -> Event: ...
    async def configure(self, values: Mapping[str, str]) -> None: ...
    async def pending(self) -> int: ...
    def cpu_s(self) -> float | None: ...
    def memory_bytes(self) -> int | None: ...
    async def ping(self) -> None: ...
    def kill(self, ended: Ended) -> None: ...
    async def close(self) -> None: ...


class Engine(Protocol):
    """Starts isolates. `open` before the first, `close` ends every one; both idempotent.

    `sandbox` is the walls around each isolate, known once it is open; `memory_note` says why no
    kernel caps what isolates hold, and is "" where one does.
    """

    @property
    def name(self) -> str: ...
    @property
    def sandbox(self) -> Sandbox: ...
    @property
    def memory_note(self) -> str: ...
    async def open(self) -> None: ...
    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> Isolate:
        """Load a bundle. Raises StartFailed when its top level throws or the engine refuses."""
        ...

    async def close(self) -> None: ...


class StartFault(StrEnum):
    """Why a bundle did not start."""

    THREW = "threw"
    SYNTAX = "syntax"
    UNSETTLED = "unsettled"
    CPU = "cpu"
    MEMORY = "memory"
    DIED = "died"


class StartFailed(Exception):
    """A bundle could not be started: the guest's own fault, told in the engine's words.

    Attributes:
        reason: such as `Uncaught Error: no key`. With DIED it is the engine's own last words:
            for our log, not for whoever sent the bundle.
        stack: the guest's frames as V8 writes them, without ours, or "".
    """

    def __init__(
        self, reason: str, stack: str = "", *, fault: StartFault = StartFault.THREW
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stack = stack
        self.fault = fault
