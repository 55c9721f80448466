"""What the dev server and the node say: JSON lines for programs, blocks for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Protocol, TextIO

from amba_router.journal import Invocation, LimitEvent
from amba_run.breaches import Pace
from amba_run.output import Out, neutral
from amba_run.stacks import mapped_message, mapped_stack
from amba_runtime.admission import Violation
from amba_runtime.outcome import GuestException, LogLine, Tell
from amba_runtime.pool import Slot

Row = dict[str, Any]


class Reporter(Protocol):
    """What can be said. All calls are quick and never raise."""

    def ready(self, facts: dict[str, Any]) -> None: ...
    def reload(self, name: str, version: int, ms: float) -> None: ...
    def build_failed(self, name: str, errors: list[dict[str, Any]], text: str) -> None: ...
    def rejected(self, name: str, violations: Sequence[Violation]) -> None: ...
    def requests(self, invocations: Sequence[Invocation]) -> None: ...
    def late(self, slot: Slot, request_id: str, tell: Tell) -> None: ...
    def limit(self, event: LimitEvent) -> None: ...
    def triggers(self, schedules: Sequence[Row], queues: Sequence[Row]) -> None: ...
    def queue(self, row: Row) -> None: ...
    def warn(self, message: str) -> None: ...
    def stopping(self) -> None: ...
    def close(self) -> None: ...


class JsonReporter:
    """One JSON object a line on stdout; talk on stderr. Source: interface.md section 3."""

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._out = Out(stdout, lost=lambda n: f'{{"event": "lost", "blocks": {n}}}\n')
        self._err = Out(stderr, lost=_lost_line)

    def _say(self, event: str, **fields: Any) -> None:
        self._out.write(json.dumps({"event": event, **fields}) + "\n")

    def ready(self, facts: dict[str, Any]) -> None:
        """The ready line."""
        self._say("ready", **facts)

    def reload(self, name: str, version: int, ms: float) -> None:
        """A new version serves."""
        self._say("reload", name=name, version=version, ms=round(ms, 3))

    def build_failed(self, name: str, errors: list[dict[str, Any]], text: str) -> None:
        """The newest source does not build."""
        self._say("build_failed", name=name, errors=errors)

    def rejected(self, name: str, violations: Sequence[Violation]) -> None:
        """The newest bundle may not serve."""
        self._say("rejected", name=name, violations=[v.as_json() for v in violations])

    def requests(self, invocations: Sequence[Invocation]) -> None:
        """One line each, written together: this runs beside the data path."""
        lines: list[str] = []
        for i in invocations:
            logs, exceptions = "[]", "[]"
            if i.tell is not None:
                logs = json.dumps([log_json(i.slot, line) for line in i.tell.logs])
                exceptions = json.dumps([exception_json(i.slot, e) for e in i.tell.exceptions])
            cpu_ms = "null" if i.cpu_ms is None else i.cpu_ms
            lines.append(
                f'{{"event": "request", "request_id": "{i.request_id}", {self._whose(i)}'
                f'"function": "{i.function}", "version": {i.version}, '
                f'"method": {quote(i.method)}, "path": {quote(i.path)}, "status": {i.status}, '
                f'"outcome": "{i.outcome.value}", "ms": {i.ms:.3f}, "cpu_ms": {cpu_ms}, '
                f'"logs": {logs}, "exceptions": {exceptions}}}\n'
            )
        self._out.write("".join(lines))

    def _whose(self, invocation: Invocation) -> str:
        """A member that says the project, where there is more than one."""
        return ""

    def late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        """Lines that came after their invocation was told."""
        self._say(
            "late",
            request_id=request_id,
            function=slot.manifest.name,
            logs=[log_json(slot, line) for line in tell.logs],
            exceptions=[exception_json(slot, e) for e in tell.exceptions],
        )

    def limit(self, event: LimitEvent) -> None:
        """A limit that was passed, or is near."""
        breach = event.breach
        self._say(
            "limit",
            limit=breach.limit,
            used=breach.used,
            most=breach.most,
            action=event.action,
            project=event.project,
            function=event.function,
            version=event.version,
            request_id=event.request_id,
        )

    def triggers(self, schedules: Sequence[Row], queues: Sequence[Row]) -> None:
        """The schedules and queues that there are; rows of the platform API."""
        self._say("triggers", schedules=list(schedules), queues=list(queues))

    def queue(self, row: Row) -> None:
        """A queue that began to wait, or has new dead letters."""
        self._say("queue", **row)

    def warn(self, message: str) -> None:
        """Talk."""
        self._err.write(f"warning: {neutral(message)}\n")

    def stopping(self) -> None:
        """The last event."""
        self._say("stopping")

    def close(self) -> None:
        """Idempotent."""
        self._out.close()
        self._err.close()


def log_json(slot: Slot | None, line: LogLine) -> dict[str, Any]:
    """A console line as the wire of contract D.5 spells it, logged stacks mapped."""
    message = mapped_message(slot, line.message)
    return {"Level": line.level, "Message": message, "TimestampMs": line.timestamp_ms}


def exception_json(slot: Slot | None, error: GuestException) -> dict[str, Any]:
    """An exception as contract D.5 spells it, with its stack mapped to the user's files."""
    return {
        "Name": error.name,
        "Message": error.message,
        "Stack": mapped_stack(slot, error.stack),
        "TimestampMs": error.timestamp_ms,
    }


class Warns(Protocol):
    """Where talk goes."""

    def warn(self, message: str) -> None: ...


class LogHandler(logging.Handler):
    """Warnings of our own modules as talk, on the same never-blocking way out."""

    def __init__(self, say: Warns) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """One record; a traceback follows where there is one."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._say.warn(text)


_RESET, _BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN = (
    f"\x1b[{code}m" for code in ("0", "1", "2", "31", "32", "33", "36")
)


class TerminalReporter:
    """Blocks for people: one per request, console lines and mapped stack below it."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._out = Out(stream, lost=_lost_line)
        self._colour = colour
        self._pace = Pace()

    def _c(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour else text

    def ready(self, facts: dict[str, Any]) -> None:
        """Where everything is."""
        c = self._c
        functions: list[dict[str, Any]] = facts["functions"]
        width = max((len(f["name"]) for f in functions), default=0)
        lines = [f"{c(_BOLD, 'amba-run dev')}  {facts['origin']}  ({facts['engine']})"]
        lines += [f"  {c(_GREEN, f['name'].ljust(width))}  {f['url']}" for f in functions]
        lines.append(c(_DIM, f"  state: {facts['state']}"))
        lines.append(c(_DIM, "  Ctrl-C stops."))
        self._out.write("\n".join(lines) + "\n")

    def reload(self, name: str, version: int, ms: float) -> None:
        """A new version serves."""
        self._out.write(self._c(_GREEN, f"reloaded {name} v{version} in {ms:.0f} ms") + "\n")

    def build_failed(self, name: str, errors: list[dict[str, Any]], text: str) -> None:
        """The newest source does not build."""
        count = f"{len(errors)} error{'s' if len(errors) != 1 else ''}"
        head = self._c(_RED, f"{name} does not build: {count}")
        self._out.write(f"{head}\n{neutral(text.rstrip())}\n")

    def rejected(self, name: str, violations: Sequence[Violation]) -> None:
        """The newest bundle may not serve."""
        lines = [self._c(_RED, f"{name} was refused")]
        for v in violations:
            lines += [f"  {neutral(line)}" for line in v.as_text().splitlines()]
        self._out.write("\n".join(lines) + "\n")

    def requests(self, invocations: Sequence[Invocation]) -> None:
        """One block each."""
        blocks: list[str] = []
        for i in invocations:
            colour = _RED if i.status >= 500 or not i.status else _YELLOW
            status = str(i.status or "---")
            head = f"{i.method} {neutral(i.path)}"
            ok = self._c(_GREEN, status) if 0 < i.status < 400 else self._c(colour, status)
            why = "" if i.outcome.value == "ok" else self._c(_YELLOW, f"  {i.outcome.value}")
            tail = self._c(_DIM, f"{i.ms:.1f} ms  {i.function} v{i.version}")
            blocks.append(f"{ok} {head}  {tail}{why}\n")
            if i.note:
                blocks.append(self._c(_DIM, f"    {neutral(i.note)}") + "\n")
            if i.tell is not None:
                blocks.append(self._tell(i.slot, i.tell))
        self._out.write("".join(blocks))

    def late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        """Lines that came after their invocation was told."""
        head = self._c(_DIM, f"later, {slot.manifest.name} {request_id}")
        self._out.write(f"{head}\n{self._tell(slot, tell)}")

    def _tell(self, slot: Slot | None, tell: Tell) -> str:
        lines: list[str] = []
        for line in tell.logs:
            message = mapped_message(slot, line.message)
            text = " ".join(m if isinstance(m, str) else json.dumps(m) for m in message)
            colour = {"error": _RED, "warn": _YELLOW}.get(line.level, _CYAN)
            label = self._c(colour, line.level.ljust(5))
            lines.append(f"    {label} " + "\n          ".join(neutral(text).split("\n")) + "\n")
        for error in tell.exceptions:
            title = f"{error.name}: {error.message}"
            lines.append("    " + self._c(_RED, neutral(title)) + "\n")
            for frame in mapped_stack(slot, error.stack).split("\n"):
                if frame.lstrip().startswith("at "):
                    lines.append(f"      {neutral(frame.strip())}\n")
        return "".join(lines)

    def limit(self, event: LimitEvent) -> None:
        """One line; the same again within a second is said once."""
        text = self._pace.text(event)
        if text:
            colour = _YELLOW if event.action == "warned" else _RED
            self._out.write(self._c(colour, neutral(text)) + "\n")

    def triggers(self, schedules: Sequence[Row], queues: Sequence[Row]) -> None:
        """The next run of each schedule, and the queues with their consumers."""
        from amba_run import trigger_lines  # zones of the world, for those who have schedules

        lines = [*trigger_lines.upcoming(schedules), *trigger_lines.consumers(queues)]
        self._out.write("".join(self._c(_DIM, f"  {line}") + "\n" for line in lines))

    def queue(self, row: Row) -> None:
        """A queue that began to wait, or has new dead letters."""
        from amba_run import trigger_lines

        name = row["queue_name"]
        text = f"queue {name}: {trigger_lines.depth(row)}"
        more = f"  (amba-run queues peek {name} --state dead)" if row["dead"] else ""
        self._out.write(self._c(_YELLOW, neutral(text + more)) + "\n")

    def warn(self, message: str) -> None:
        """Talk."""
        self._out.write(self._c(_YELLOW, f"warning: {neutral(message)}") + "\n")

    def stopping(self) -> None:
        """The last line."""
        self._out.write("stopping\n")

    def close(self) -> None:
        """Idempotent."""
        self._out.close()


def _lost_line(blocks: int) -> str:
    return f"({blocks} more lines or blocks were dropped: this output was read too slowly)\n"


def for_terminal(*, json_: bool, no_colour: bool) -> Reporter:
    """The reporter for this process's own streams."""
    if json_:
        return JsonReporter(sys.stdout, sys.stderr)
    return TerminalReporter(sys.stdout, colour=sys.stdout.isatty() and not no_colour)
