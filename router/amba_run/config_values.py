"""The values that a configuration file is read into: frozen, complete, with their defaults.

Source: interface.md section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from amba_runtime import limits
from amba_runtime.limits import FunctionLimits

if TYPE_CHECKING:  # only functions with such rules pay for it: start-up time counts
    from amba_runtime.egress_rules import EgressRules

COMPATIBILITY_DATE = "2026-01-01"
"""The default, the same for dev, check and node. Source: interface.md section 4."""

NOTHING_SET: Mapping[str, int] = MappingProxyType({})


class EngineChoice(StrEnum):
    """Which engine runs a function. Source: interface.md section 2 (`--engine`)."""

    AUTO = "auto"
    WORKERD = "workerd"
    WASM = "wasm"


class RateLimitKey(StrEnum):
    """What a rate limit counts by. Source: contract D.8."""

    USER_ID = "user_id"
    IP = "ip"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`window` as written (`60s`), and in seconds. Source: contract D.8."""

    window: str
    window_s: int
    max: int
    key: RateLimitKey


class Missed(StrEnum):
    """What becomes of a run that was missed while the server was down. Ours, beside D.6."""

    SKIP = "skip"
    RUN_ONCE = "run_once"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Five cron fields, blanks between them, and an IANA zone. Source: contract D.6."""

    cron: str
    timezone: str = "UTC"
    missed: Missed = Missed.SKIP


@dataclass(frozen=True, slots=True)
class QueueBinding:
    """One queue and its consumer. Source: contract D.7; the settings are ours, see `limits`."""

    queue: str
    function: str
    paused: bool = False
    batch_size: int = 1
    batch_wait_ms: int = 0
    consumers: int = limits.QUEUE_CONSUMERS_USUAL.value
    retries: int = limits.QUEUE_RETRIES_USUAL.value
    backoff_ms: int = limits.QUEUE_BACKOFF_MS.value


class EgressTarget(NamedTuple):
    """One `HOST:PORT` that functions may reach besides the public internet; host lower-case."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class FunctionConfig:
    """One `[functions.NAME]`.

    Attributes:
        entry: as written, relative to the folder; None for a function found in PATH.
        limits: only what is set here; `ProjectConfig.limits_for` has what is in force.
        schedules: None where the file says nothing of them.
        egress: what it may reach at most, and its secrets that stay outside; None rules nothing.
        place: `amba.toml:12`, for messages.
    """

    name: str
    place: str
    entry: str | None = None
    rate_limit: RateLimit | None = None
    schedules: tuple[Schedule, ...] | None = None
    engine: EngineChoice = EngineChoice.AUTO
    limits: Mapping[str, int] = field(default_factory=lambda: NOTHING_SET)
    egress: EgressRules | None = None


NO_FUNCTIONS: Mapping[str, FunctionConfig] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """What a folder says; every field has its default when there is no file.

    Attributes:
        file: the file that was read, or None.
        project_slug: None when the file names none (`amba-run dev` then takes `local`).
        limits: the project-wide `[limits]`, only what is set.
        seed: the folder with seeds of a dev server, relative to `folder`.
        ai_fixtures: the folder with recorded replies of AI prompts, relative to `folder`.
    """

    folder: Path
    file: Path | None = None
    project_slug: str | None = None
    functions: Mapping[str, FunctionConfig] = field(default_factory=lambda: NO_FUNCTIONS)
    limits: Mapping[str, int] = field(default_factory=lambda: NOTHING_SET)
    queues: tuple[QueueBinding, ...] = ()
    storage: bool = True
    egress_allow: tuple[EgressTarget, ...] = ()
    compatibility_date: str = COMPATIBILITY_DATE
    seed: str | None = None
    ai_fixtures: str | None = None

    def limits_for(self, name: str, defaults: FunctionLimits) -> FunctionLimits:
        """The limits in force: the function's over the project's over `defaults`."""
        function = self.functions.get(name)
        own = function.limits if function is not None else NOTHING_SET
        return defaults.override({**self.limits, **own})
