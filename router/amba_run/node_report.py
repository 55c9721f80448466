"""What a hosted node says: JSON lines on stdout for programs, or a few lines of talk on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TextIO

from amba_router.journal import Invocation, LimitEvent
from amba_router.logs import Mappers, is_stack
from amba_run.breaches import Pace
from amba_run.output import Out, neutral
from amba_run.report import JsonReporter
from amba_runtime.background import Background
from amba_runtime.outcome import Tell
from amba_runtime.slot import Slot


class NodeReporter(Protocol):
    """What can be said. All calls are quick and never raise."""

    def ready(self, facts: dict[str, Any]) -> None: ...
    def told(self) -> bool: ...
    def requests(self, invocations: Sequence[Invocation]) -> None: ...
    def late(self, slot: Slot, request_id: str, tell: Tell) -> None: ...
    def limit(self, event: LimitEvent) -> None: ...
    def warn(self, message: str) -> None: ...
    def say(self, message: str) -> None: ...
    def stopping(self) -> None: ...
    def close(self) -> None: ...


class NodeTalk:
    """For people: where it is, what is wrong, the end; requests are for `functions logs`."""

    def __init__(self, stderr: TextIO) -> None:
        self._err = Out(stderr, lost=lambda n: f"({n} more lines were dropped)\n")
        self._pace = Pace()

    def ready(self, facts: dict[str, Any]) -> None:
        """One line; another one with the first token of a new state directory."""
        line = f"amba-run node  {facts['origin']}  ({facts['engine']})  state: {facts['state']}\n"
        keys = facts.get("keys")
        if keys:
            line += f"developer token, shown this once: {keys['pat']}\n"
        self._err.write(line)

    def told(self) -> bool:
        """Whether what was said so far has been written. Blocks a moment."""
        return self._err.settled()

    def requests(self, invocations: Sequence[Invocation]) -> None:
        """Nothing."""

    def late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        """Nothing."""

    def limit(self, event: LimitEvent) -> None:
        """Isolates that were ended; the rest is for `functions logs` and the metrics."""
        text = self._pace.text(event) if event.action == "killed" else ""
        if text:
            self._err.write(f"{neutral(event.project)}: {neutral(text)}\n")

    def warn(self, message: str) -> None:
        """Something a person should know."""
        self._err.write(f"warning: {neutral(message)}\n")

    def say(self, message: str) -> None:
        """Something that was done."""
        self._err.write(f"{neutral(message)}\n")

    def stopping(self) -> None:
        """The last line."""
        self._err.write("stopping\n")

    def close(self) -> None:
        """Idempotent."""
        self._err.close()


class NodeJson(JsonReporter):
    """For programs; stacks are led back to the users' files where their maps can be had.

    Maps lie in the store: an event with a stack is told a moment after the others.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        super().__init__(stdout, stderr)
        self._mappers: Mappers | None = None
        self._background = Background()

    def map_with(self, mappers: Mappers) -> None:
        """Where maps are had from here on."""
        self._mappers = mappers

    def told(self) -> bool:
        """Whether the events so far have been written. Blocks a moment."""
        return self._out.settled()

    def requests(self, invocations: Sequence[Invocation]) -> None:
        """One line each."""
        plain = [i for i in invocations if not _has_stack(i.tell)]
        if plain:
            super().requests(plain)
        for invocation in invocations:
            if _has_stack(invocation.tell):
                self._background.spawn(self._with_stacks(invocation))

    async def _with_stacks(self, invocation: Invocation) -> None:
        slot, tell = invocation.slot, invocation.tell
        if self._mappers is not None and slot is not None and tell is not None:
            m = slot.manifest
            map_stack = await self._mappers(m.project_id, m.name, m.version)
            tell = Tell(
                [
                    line._replace(
                        message=[map_stack(v) if is_stack(v) else v for v in line.message]
                    )
                    for line in tell.logs
                ],
                [replace(e, stack=map_stack(e.stack)) for e in tell.exceptions],
                tell.threw,
            )
        super().requests([replace(invocation, tell=tell)])

    def _whose(self, invocation: Invocation) -> str:
        slot = invocation.slot
        return "" if slot is None else f'"project": "{slot.manifest.project_id}", '

    def say(self, message: str) -> None:
        """Something that was done."""
        self._err.write(f"{neutral(message)}\n")


def for_node(*, json_: bool) -> NodeReporter:
    """The reporter for this process's own streams."""
    return NodeJson(sys.stdout, sys.stderr) if json_ else NodeTalk(sys.stderr)


def _has_stack(tell: Tell | None) -> bool:
    if tell is None:
        return False
    return any(e.stack for e in tell.exceptions) or any(
        is_stack(value) for line in tell.logs for value in line.message
    )
