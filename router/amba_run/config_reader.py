"""From parsed TOML to a `ProjectConfig`: every rule of the configuration file, one method each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast

from amba_runtime import limits
from amba_runtime.limits import Setting
from amba_runtime.manifest import FUNCTION_NAME, PROJECT_SLUG

from .config_values import (
    COMPATIBILITY_DATE,
    NO_FUNCTIONS,
    NOTHING_SET,
    EgressTarget,
    EngineChoice,
    FunctionConfig,
    ProjectConfig,
    QueueBinding,
    RateLimit,
    RateLimitKey,
    Schedule,
)
from .problems import KeyPath, Problems, TomlLines, did_you_mean, dotted, one_of, shown

if TYPE_CHECKING:
    from amba_runtime.egress_rules import EgressRules

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=StrEnum)

ENTRY_SUFFIXES = (".ts", ".tsx", ".js", ".mjs", ".py")
NAME_RULE = "a lower-case letter, then lower-case letters, digits, - and _, 58 characters in all"

_ELSEWHERE = {
    "secrets": "secrets stand in .dev.vars, as NAME=value",
    "vars": "values for env stand in .dev.vars, as NAME=value",
    "env": "values for env stand in .dev.vars, as NAME=value",
    "name": 'the project\'s slug is written project = "local"',
    "main": "an entry file is written [functions.NAME] entry",
    "compatibility_flags": "the platform takes no flags",
}
"""Keys that users of other tools expect, and where their matter goes here."""

_EGRESS_ELSEWHERE = {"allow": "what all functions may reach besides stands in [egress] allow"}

_PROJECT_KEYS = (
    *("project", "functions", "limits", "queues", "storage", "egress", "seed"),
    "compatibility_date",
)
_FUNCTION_KEYS = ("entry", "rate_limit", "schedules", "engine", "limits", "egress")
_WINDOW = re.compile(r"([0-9]{1,9})([smh])\Z")
_WINDOW_S = {"s": 1, "m": 60, "h": 3600}
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_TARGET = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\]):([0-9]{{1,5}})\Z")


class ConfigReader:
    """Turns one parsed file into a `ProjectConfig`, noting every problem on the way.

    Each method takes a key path and the value there, and gives the value understood, or None
    after noting a problem (the result is thrown away then: `load_config` raises).
    """

    def __init__(self, file: Path, lines: TomlLines, prefix: KeyPath, problems: Problems) -> None:
        self.file = file
        self.lines = lines
        self.prefix = prefix
        self.problems = problems

    # --- the file ---

    def project(self, value: object) -> ProjectConfig:
        table = self.table((), value, _PROJECT_KEYS, _ELSEWHERE)
        return ProjectConfig(
            folder=self.file.parent,
            file=self.file,
            project_slug=self.take(table, (), "project", self.slug, None),
            functions=self.take(table, (), "functions", self.functions, NO_FUNCTIONS),
            limits=self.take(table, (), "limits", self.limits, NOTHING_SET),
            queues=self.take(table, (), "queues", self.queues, ()),
            storage=self.take(table, (), "storage", self.switch, True),
            egress_allow=self.take(table, (), "egress", self.egress, ()),
            compatibility_date=self.take(
                table, (), "compatibility_date", self.day, COMPATIBILITY_DATE
            ),
            seed=self.take(table, (), "seed", self.seed, None),
        )

    def functions(self, path: KeyPath, value: object) -> Mapping[str, FunctionConfig]:
        read: dict[str, FunctionConfig] = {}
        for name, entry in self.named(path, value, "function").items():
            read[name] = self.function((*path, name), name, entry)
        return MappingProxyType(read)

    def function(self, path: KeyPath, name: str, value: object) -> FunctionConfig:
        table = self.table(path, value, _FUNCTION_KEYS)
        return FunctionConfig(
            name=name,
            place=self.place(path),
            entry=self.take(table, path, "entry", self.entry, None),
            rate_limit=self.take(table, path, "rate_limit", self.rate_limit, None),
            schedules=self.take(table, path, "schedules", self.schedules, None),
            engine=self.take(table, path, "engine", self.engine, EngineChoice.AUTO),
            limits=self.take(table, path, "limits", self.limits, NOTHING_SET),
            egress=self.take(table, path, "egress", self.egress_rules, None),
        )

    def limits(self, path: KeyPath, value: object) -> Mapping[str, int]:
        settings = {setting.name: setting for setting in limits.SETTINGS}
        read: dict[str, int] = {}
        for name, number in self.table(path, value, settings).items():
            checked = self.setting((*path, name), number, settings[name])
            if checked is not None:
                read[name] = checked
        return MappingProxyType(read)

    def queues(self, path: KeyPath, value: object) -> tuple[QueueBinding, ...]:
        read: list[QueueBinding] = []
        for queue, entry in self.named(path, value, "queue").items():
            here = (*path, queue)
            if isinstance(entry, str):
                entry = {"function": entry}
            table = self.table(here, entry, ("function", "status"), required=("function",))
            function = self.take(table, here, "function", self.function_name, None)
            status = self.take(table, here, "status", self.status, "active")
            if function is not None:
                read.append(QueueBinding(queue, function, paused=status == "paused"))
        return tuple(read)

    def egress(self, path: KeyPath, value: object) -> tuple[EgressTarget, ...]:
        table = self.table(path, value, ("allow",))
        return self.take(table, path, "allow", lambda p, v: self.array(p, v, self.target), ())

    def seed(self, path: KeyPath, value: object) -> str | None:
        table = self.table(path, value, ("folder",), required=("folder",))
        return self.take(table, path, "folder", self.below, None)

    def below(self, path: KeyPath, value: object) -> str | None:
        parts = Path(value).parts if isinstance(value, str) and value.isprintable() else ()
        if not parts or ".." in parts or Path(*parts).is_absolute():
            self.wrong(path, "a folder below this one, written relative to it", value)
            return None
        return str(value)

    def egress_rules(self, path: KeyPath, value: object) -> EgressRules | None:
        from amba_runtime.egress_rules import EgressRules, RuleError

        table = self.table(path, value, ("only", "secrets"), _EGRESS_ELSEWHERE)
        try:
            return EgressRules.of(table)
        except RuleError as error:
            self.note((*path, *error.path), str(error))
            return None

    # --- values ---

    def slug(self, path: KeyPath, value: object) -> str | None:
        return self.matching(
            path,
            value,
            PROJECT_SLUG,
            "2 to 63 lower-case letters, digits and -, not beginning with -",
        )

    def function_name(self, path: KeyPath, value: object) -> str | None:
        return self.matching(path, value, FUNCTION_NAME, f"the name of a function: {NAME_RULE}")

    def switch(self, path: KeyPath, value: object) -> bool:
        if not isinstance(value, bool):
            self.wrong(path, "true or false", value)
            return True
        return value

    def day(self, path: KeyPath, value: object) -> str:
        """A TOML date or a string; given back as `YYYY-MM-DD`."""
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            try:
                return date.fromisoformat(value).isoformat()
            except ValueError:
                pass
        self.wrong(path, f'a day such as "{COMPATIBILITY_DATE}"', value)
        return COMPATIBILITY_DATE

    def entry(self, path: KeyPath, value: object) -> str | None:
        expected = f"a file in or below this folder, ending in {', '.join(ENTRY_SUFFIXES)}"
        if not isinstance(value, str) or not value.endswith(ENTRY_SUFFIXES):
            self.wrong(path, expected, value)
            return None
        if not value.isprintable() or Path(value).is_absolute() or ".." in Path(value).parts:
            self.wrong(path, f"{expected}, written relative to it", value)
            return None
        return value

    def engine(self, path: KeyPath, value: object) -> EngineChoice:
        return self.choice(path, value, EngineChoice) or EngineChoice.AUTO

    def rate_limit(self, path: KeyPath, value: object) -> RateLimit | None:
        """All three keys or none. Source: contract D.8."""
        keys = ("window", "max", "key")
        table = self.table(path, value, keys, required=keys)
        window = self.take(table, path, "window", self.window, None)
        most = limits.RATE_LIMIT_MAX.value
        count = self.take(
            table, path, "max", lambda p, v: self.number(p, v, f"1 to {most}", 1, most), None
        )
        key = self.take(table, path, "key", lambda p, v: self.choice(p, v, RateLimitKey), None)
        if window is None or count is None or key is None:
            return None
        return RateLimit(window, _window_s(window), count, key)

    def window(self, path: KeyPath, value: object) -> str | None:
        most = limits.RATE_LIMIT_WINDOW_MAX_S.value
        expected = 'a time such as "60s", "5m" or "1h", from 1 second to 1 hour'
        if not isinstance(value, str) or not 1 <= _window_s(value) <= most:
            self.wrong(path, expected, value)
            return None
        return value

    def schedules(self, path: KeyPath, value: object) -> tuple[Schedule, ...]:
        from .config_schedules import read_schedule

        return self.array(path, value, lambda p, v: read_schedule(self, p, v))

    def status(self, path: KeyPath, value: object) -> str:
        if value not in ("active", "paused"):
            self.wrong(path, 'one of "active", "paused"', value)
        return str(value)

    def setting(self, path: KeyPath, value: object, setting: Setting) -> int | None:
        if setting.off and value == 0 and isinstance(value, int) and not isinstance(value, bool):
            return 0
        unit = f" {setting.unit}" if setting.unit else ""
        off = "; 0 = off" if setting.off else ""
        expected = f"{setting.minimum} to {setting.maximum}{unit}{off}"
        return self.number(path, value, expected, setting.minimum, setting.maximum)

    def target(self, path: KeyPath, value: object) -> EgressTarget | None:
        match = _TARGET.match(value) if isinstance(value, str) and len(value) <= 260 else None
        if match is None or not 1 <= int(match[2]) <= 65535 or not _address_holds(match[1]):
            self.wrong(path, 'HOST:PORT such as "localhost:5432" or "[::1]:8080"', value)
            return None
        return EgressTarget(match[1].lower().strip("[]"), int(match[2]))

    # --- shapes ---

    def table(
        self,
        path: KeyPath,
        value: object,
        known: Mapping[str, object] | tuple[str, ...],
        elsewhere: Mapping[str, str] | None = None,
        *,
        required: tuple[str, ...] = (),
    ) -> dict[str, object]:
        """The known members of a table; unknown and missing ones are noted."""
        if not isinstance(value, dict):
            self.wrong(path, f"a table with {one_of(known)}", value)
            return {}
        members = cast(dict[str, object], value)
        for name in sorted(members.keys() - set(known)):
            moved = (elsewhere or {}).get(name)
            near = did_you_mean(name, known) or f"; known are {one_of(known)}"
            self.note((*path, name), "unknown key" + (f": {moved}" if moved else near))
        for name in required:
            if name not in members:
                self.note(path, f'"{name}" is missing (needed: {one_of(required)})')
        return {name: members[name] for name in known if name in members}

    def named(self, path: KeyPath, value: object, kind: str) -> dict[str, object]:
        """A table whose keys are names of functions or queues; those that break the rule are
        noted and left out."""
        if not isinstance(value, dict):
            self.wrong(path, f"a table with one table per {kind}", value)
            return {}
        members = cast(dict[str, object], value)
        for name in members:
            if FUNCTION_NAME.match(name) is None:
                self.note((*path, name), f"is no name for a {kind}; expected {NAME_RULE}")
        return {name: v for name, v in members.items() if FUNCTION_NAME.match(name)}

    def array(
        self, path: KeyPath, value: object, parse: Callable[[KeyPath, object], T | None]
    ) -> tuple[T, ...]:
        if not isinstance(value, list):
            self.wrong(path, "an array", value)
            return ()
        read = [parse((*path, i), v) for i, v in enumerate(cast(list[object], value))]
        return tuple(item for item in read if item is not None)

    def take(
        self,
        table: dict[str, object],
        path: KeyPath,
        key: str,
        parse: Callable[[KeyPath, object], T],
        default: D,
    ) -> T | D:
        return parse((*path, key), table[key]) if key in table else default

    def matching(
        self, path: KeyPath, value: object, rule: re.Pattern[str], expected: str
    ) -> str | None:
        if not isinstance(value, str) or rule.match(value) is None:
            self.wrong(path, expected, value)
            return None
        return value

    def choice(self, path: KeyPath, value: object, kind: type[E]) -> E | None:
        known = [member.value for member in kind]
        if not isinstance(value, str) or value not in known:
            near = did_you_mean(value, known) if isinstance(value, str) else ""
            self.wrong(path, f"one of {one_of(known)}", value, near)
            return None
        return kind(value)

    def number(
        self, path: KeyPath, value: object, expected: str, lowest: int, highest: int
    ) -> int | None:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            self.wrong(path, f"a whole number, {expected}", value)
            return None
        return value

    # --- telling ---

    def wrong(self, path: KeyPath, expected: str, value: object, more: str = "") -> None:
        self.note(path, f"expected {expected}; got {_told(value)}{more}")

    def note(self, path: KeyPath, message: str) -> None:
        full = (*self.prefix, *path)
        self.problems.add(shown(self.file), self.lines.of(full), message, key=dotted(full))

    def place(self, path: KeyPath) -> str:
        line = self.lines.of((*self.prefix, *path))
        return shown(self.file) if line is None else f"{shown(self.file)}:{line}"


def _told(value: object) -> str:
    """A wrong value for a message: short, printable, in TOML's words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{shown(value[:60])}{"…" if len(value) > 60 else ""}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number far too large"
    return str(value)


def _window_s(window: str) -> int:
    """Seconds of `60s`, `5m`, `1h`; 0 when it is none of these."""
    match = _WINDOW.match(window)
    return int(match[1]) * _WINDOW_S[match[2]] if match else 0


def _address_holds(host: str) -> bool:
    """False for brackets, or four dotted numbers, around what is no IP address."""
    if not host.startswith("[") and re.fullmatch(r"[0-9.]+", host) is None:
        return len(host) <= 253
    import ipaddress  # only such targets pay for it: start-up time counts

    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (address.version == 6) == host.startswith("[")
