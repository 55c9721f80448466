"""Users of a segment become batches, and batches messages of the function's own queue.

Messages of the internal queue `fan-out:NAME`, which no binding can have: its name has a colon.
Source: contract E.13; batches, bounds and the message's form are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from msgspec import json

from amba_router.api import faults
from amba_router.services.fan_out.windows import Window
from amba_router.store import fan_out_rows, segment_rows
from amba_router.store.fan_out_rows import Member
from amba_router.store.project_store import ProjectStore
from amba_router.store.queue_records import FAN_OUT
from amba_router.store.scoped import Scoped
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms

Handlers = Callable[[str, str], tuple[str, ...] | None]
"""(project id, function) -> the handlers of what serves; None where nothing does."""

Wake = Callable[[str, str], None]
"""(project id, queue): it has messages by now."""


@dataclass(frozen=True, slots=True)
class Fanned:
    """What was done: messages, and the users in them."""

    batches: int
    users: int


class FanOut:
    """For all projects.

    Args:
        wake: called after the commit.
    """

    def __init__(self, store: ProjectStore, handlers: Handlers, wake: Wake, clock: Clock) -> None:
        self._store = store
        self._handlers = handlers
        self._wake = wake
        self._clock = clock

    async def segment(
        self,
        project_id: str,
        segment_id: str,
        function: str,
        *,
        payload: str,
        window: Window | None,
    ) -> Fanned:
        """One message for each batch of a segment's users; all are there on return, or none.

        Args:
            payload: JSON text.
            window: when each user may be reached; None is now.

        Raises:
            Refused: segment_or_function_not_found; HANDLER_MISSING; CONFLICT where the segment
                has too many users; PAYLOAD_TOO_LARGE; QUEUE_FULL.
        """
        self._check(project_id, function, payload)
        now_ms = time_ms(self._clock)
        most = limits.FAN_OUT_USERS.value

        def read(scoped: Scoped) -> list[Member]:
            _check_segment(scoped, segment_id)
            return fan_out_rows.members(scoped, segment_id, now_ms, limit=most + 1)

        # apart from the writing: the one thread that writes does not wait for a hundred thousand
        members = await self._store.read(project_id, read)
        if len(members) > most:
            raise faults.CONFLICT.refuse(
                f"the segment has more than {most} users, which one fan-out reaches at most; make "
                "smaller segments",
                {"field": "$.segment_id", "users_max": most},
            )
        messages = [
            (due_ms, _message(segment_id, ids, payload))
            for due_ms, ids in batches(members, window, now_ms)
        ]
        size = sum(len(text) for _, text in messages)
        if size > limits.FAN_OUT_BYTES.value:
            raise faults.PAYLOAD_TOO_LARGE.refuse(
                f"{len(messages)} messages with this payload have {size} bytes, of "
                f"{limits.FAN_OUT_BYTES.value}; send a smaller one, or make smaller segments",
                {"field": "$.invoke.payload", "bytes_max": limits.FAN_OUT_BYTES.value},
            )
        queue = f"{FAN_OUT}{function}"

        def write(scoped: Scoped) -> None:
            _check_segment(scoped, segment_id)
            depth = limits.QUEUE_DEPTH.value
            if not fan_out_rows.add(scoped, queue, messages, now_ms, most=depth):
                raise faults.QUEUE_FULL.refuse(
                    f"the queue {queue} would have more than {depth} messages; wait until some "
                    "are delivered"
                )

        if messages:
            await self._store.write(project_id, write)
            self._wake(project_id, queue)
        return Fanned(len(messages), len(members))

    def _check(self, project_id: str, function: str, payload: str) -> None:
        handlers = self._handlers(project_id, function)
        if handlers is None:
            raise faults.SEGMENT_OR_FUNCTION_NOT_FOUND.refuse(
                f"this project has no function {function[:64]!r}",
                {"resource": "function", "id": function[:64], "field": "$.invoke.function"},
            )
        if "queue" not in handlers:
            raise faults.HANDLER_MISSING.refuse(
                f"{function} has no queue handler, which a fan-out is delivered to; add "
                "`async queue(batch, env, ctx) {}` to its default export and deploy it",
                {"field": "$.invoke.function", "handler": "queue"},
            )
        size, most = len(payload.encode()), limits.FAN_OUT_PAYLOAD_BYTES.value
        if size > most:
            raise faults.PAYLOAD_TOO_LARGE.refuse(
                f"the payload has {size} bytes, of {most}; put it into STORAGE and send its key",
                {"field": "$.invoke.payload", "bytes_max": most},
            )


def batches(
    members: Iterable[Member], window: Window | None, now_ms: int
) -> Iterator[tuple[int, list[str]]]:
    """(when it is due, ids of its users) of each batch, the first due first.

    Users that can be reached at the same time are together; of them those who came first are first.
    """
    due_of: dict[str | None, int] = {}  # a zone's users can all be reached at the same time
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for member in members:
        due_ms = due_of.get(member.timezone)
        if due_ms is None:
            due_ms = now_ms if window is None else window.opens_ms(now_ms, member.timezone)
            due_of[member.timezone] = due_ms
        groups[due_ms].append(member.user_id)
    size = limits.FAN_OUT_BATCH.value
    for due_ms, ids in sorted(groups.items()):
        for at in range(0, len(ids), size):
            yield due_ms, ids[at : at + size]


def _message(segment_id: str, user_ids: list[str], payload: str) -> str:
    """JSON; the payload is the very text that was sent."""
    head = json.encode({"segment_id": segment_id, "user_ids": user_ids}).decode()
    return f'{head[:-1]},"payload":{payload}}}'


def _check_segment(scoped: Scoped, segment_id: str) -> None:
    if not segment_rows.known(scoped, segment_id):
        raise faults.SEGMENT_OR_FUNCTION_NOT_FOUND.refuse(
            f"this project has no segment {segment_id[:64]!r}; list them to see their ids",
            {"resource": "segment", "id": segment_id[:64], "field": "$.segment_id"},
        )
