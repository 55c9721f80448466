"""From parsed TOML to a `ProjectConfig`: the file as a whole, functions, limits, plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType

from amba_runtime import limits
from amba_runtime.limits import Setting
from amba_runtime.manifest import FUNCTION_NAME, PROJECT_SLUG

from .config_egress import EgressReader
from .config_shapes import NAME_RULE
from .config_triggers import TriggerReader
from .config_values import (
    COMPATIBILITY_DATE,
    NO_FUNCTIONS,
    NOTHING_SET,
    EngineChoice,
    FunctionConfig,
    ProjectConfig,
    RateLimit,
    RateLimitKey,
)
from .problems import KeyPath

ENTRY_SUFFIXES = (".ts", ".tsx", ".js", ".mjs", ".py")

_ELSEWHERE = {
    "secrets": "secrets stand in .dev.vars, as NAME=value",
    "vars": "values for env stand in .dev.vars, as NAME=value",
    "env": "values for env stand in .dev.vars, as NAME=value",
    "name": 'the project\'s slug is written project = "local"',
    "main": "an entry file is written [functions.NAME] entry",
    "compatibility_flags": "the platform takes no flags",
}
"""Keys that users of other tools expect, and where their matter goes here."""

_PROJECT_KEYS = (
    *("project", "functions", "limits", "queues", "storage", "egress", "seed", "ai"),
    "compatibility_date",
)
_FUNCTION_KEYS = ("entry", "rate_limit", "schedules", "engine", "limits", "egress")
_WINDOW = re.compile(r"([0-9]{1,9})([smh])\Z")
_WINDOW_S = {"s": 1, "m": 60, "h": 3600}


class ConfigReader(TriggerReader, EgressReader):
    """Turns one parsed file into a `ProjectConfig`: see `Shapes`."""

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
            ai_fixtures=self.take(table, (), "ai", self.ai, None),
        )

    def functions(self, path: KeyPath, value: object) -> Mapping[str, FunctionConfig]:
        read: dict[str, FunctionConfig] = {}
        for name, entry in self.named(path, value, "function", FUNCTION_NAME, NAME_RULE).items():
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

    def seed(self, path: KeyPath, value: object) -> str | None:
        table = self.table(path, value, ("folder",), required=("folder",))
        return self.take(table, path, "folder", self.below, None)

    def ai(self, path: KeyPath, value: object) -> str | None:
        table = self.table(path, value, ("fixtures",))
        return self.take(table, path, "fixtures", self.below, None)

    def below(self, path: KeyPath, value: object) -> str | None:
        parts = Path(value).parts if isinstance(value, str) and value.isprintable() else ()
        if not parts or ".." in parts or Path(*parts).is_absolute():
            self.wrong(path, "a folder below this one, written relative to it", value)
            return None
        return str(value)

    # --- values ---

    def slug(self, path: KeyPath, value: object) -> str | None:
        return self.matching(
            path,
            value,
            PROJECT_SLUG,
            "2 to 63 lower-case letters, digits and -, not beginning with -",
        )

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

    def setting(self, path: KeyPath, value: object, setting: Setting) -> int | None:
        if setting.off and value == 0 and isinstance(value, int) and not isinstance(value, bool):
            return 0
        unit = f" {setting.unit}" if setting.unit else ""
        off = "; 0 = off" if setting.off else ""
        expected = f"{setting.minimum} to {setting.maximum}{unit}{off}"
        return self.number(path, value, expected, setting.minimum, setting.maximum)


def _window_s(window: str) -> int:
    """Seconds of `60s`, `5m`, `1h`; 0 when it is none of these."""
    match = _WINDOW.match(window)
    return int(match[1]) * _WINDOW_S[match[2]] if match else 0
