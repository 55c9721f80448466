"""Our talk with a running engine: events, new values, questions; and what it says late.

Over sockets that no tenant's request reaches: to our own worker beside the guest's
(host/control.mjs), and from the guest's realm back to us.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from amba_runtime import limits, wire
from amba_runtime.callers import Callers
from amba_runtime.engine.base import QueueMessage
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.outcome import Event, Outcome, Tell


class Control:
    """The conversation with one process.

    Args:
        tell: lines of an invocation that was answered before they were written.
        callers: told of events, by names that we give them.
    """

    def __init__(
        self, client: wire.Client, tell: Callable[[str, Tell], None], callers: Callers
    ) -> None:
        self._client = client
        self._callers = callers
        self._tell = tell
        self._events: dict[str, Tell] = {}  # by the names that we gave them

    def close(self) -> None:
        """End its connections. Idempotent."""
        self._client.close()

    async def scheduled(
        self, *, cron: str, scheduled_time_ms: int, tell: Tell | None = None
    ) -> Event:
        """Deliver one schedule slot and wait for its end, `waitUntil` included."""
        members = f'"cron":{_text(cron)},"scheduledTimeMs":{scheduled_time_ms}'
        label = f"scheduled {scheduled_time_ms} {cron}"
        return await self._deliver(label, "/scheduled", members, tell or Tell())

    async def queue(
        self, *, queue: str, messages: Sequence[QueueMessage], tell: Tell | None = None
    ) -> Event:
        """Deliver one batch and wait for its end, `waitUntil` included."""
        first = messages[0].id if messages else ""
        # a body is JSON already: what it holds is neither read nor written anew
        batch = ",".join(
            f'{{"id":{_text(m.id)},"timestampMs":{m.timestamp_ms},"attempts":{m.attempts},'
            f'"body":{m.body}}}'
            for m in messages
        )
        members = f'"queue":{_text(queue)},"messages":[{batch}]'
        return await self._deliver(f"queue {queue} {first}", "/queue", members, tell or Tell())

    async def configure(self, values: Mapping[str, str]) -> None:
        """Give text bindings new values, for invocations from now on. Raises WireError."""
        await self.ask("/env", json.dumps(dict(values)))

    async def pending(self) -> int:
        """Promises given to `waitUntil` that have not settled; untrusted. Raises WireError."""
        count = (await self.ask("/pending")).get("pending")
        return count if isinstance(count, int) else 0

    async def ping(self) -> None:
        """Returns once the thread that runs JavaScript has answered. Raises WireError."""
        await self.ask("/ping")

    async def _deliver(self, label: str, path: str, members: str, tell: Tell) -> Event:
        with self._callers.event() as caller:
            self._events[caller] = tell
            try:
                ours = f'"label":{_text(label)},"caller":{_text(caller)}'
                result = await self.ask(path, f"{{{members},{ours}}}")
            finally:
                del self._events[caller]
        try:
            outcome = Outcome(str(result.get("outcome")))
        except ValueError:
            outcome = Outcome.INTERNAL_ERROR
        return Event(outcome, tell, result)

    async def ask(self, path: str, event: str | None = None) -> dict[str, Any]:
        """One question to the control worker.

        Args:
            event: JSON text to send with it.

        Raises:
            WireError: the engine is gone.
            InternalError: it answered what our own worker cannot have said.
        """
        connection = await self._client.acquire()
        try:
            body = b"" if event is None else event.encode()
            connection.begin(
                b"GET" if event is None else b"POST",
                path.encode(),
                b"host: control\r\n",
                len(body),
            )
            connection.write(body)
            await connection.head()
            parts: list[bytes] = []
            size = 0
            while data := await connection.read():
                size += len(data)
                if size > limits.CONTROL_BYTES.value:
                    raise InternalError(InternalCode.ENGINE_PROTOCOL, f"{path} answers too much")
                parts.append(data)
            status = connection.status
        except BaseException:
            connection.abort()
            raise
        connection.release()
        try:
            answer: Any = json.loads(b"".join(parts)) if status == 200 else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise InternalError(
                InternalCode.ENGINE_PROTOCOL, f"the control worker answered {path} with {status}"
            )
        return cast(dict[str, Any], answer)

    async def late(self, request: wire.Request) -> wire.Response:
        """Console lines that were written after their invocation was answered."""
        name = (request.header(b"amba-run-invocation") or b"").decode("latin-1")
        tell = Tell.unread(await request.read(limits.LOG_POST_BYTES.value))
        event = self._events.get(name)
        if event is not None:
            event.extend(tell)
        else:
            self._tell(name, tell)
        return wire.Response(204)


def _text(value: str) -> str:
    return json.dumps(value)
