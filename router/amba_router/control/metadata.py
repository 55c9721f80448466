"""The `metadata` part of an upload: what is declared about a function, each rule with its code.

Source: contract A.2, D.2, D.3, D.8; interface.md section 4 (`limits`, `schedules`, `engine`);
reliability.md rows G13 and G14 (`egress`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from amba_router.api import faults
from amba_router.api.decoding import decode_json
from amba_router.control.function_models import Metadata
from amba_router.control.timetable import Line
from amba_router.rate_limit import RateLimit, parse_rate_limit
from amba_runtime import limits
from amba_runtime.egress_rules import NO_RULES, EgressRules, RuleError
from amba_runtime.errors import UserError
from amba_runtime.manifest import FUNCTION_NAME, FunctionName
from amba_runtime.violations import Violation, ViolationCode

_ENGINES = ("auto", "workerd")
_LATER_ENGINES = ("wasm",)


@dataclass(frozen=True, slots=True)
class Declared:
    """What an upload says of itself, checked.

    Attributes:
        schedules: None where it says nothing of them: those that are there stay.
    """

    name: FunctionName
    rate_limit: RateLimit | None
    limits: Mapping[str, int]
    engine: str
    egress: EgressRules = NO_RULES
    schedules: tuple[Line, ...] | None = None


def read_metadata(raw: bytes, cron: Callable[[str, str], str]) -> Declared:
    """Decode and check.

    Args:
        cron: checks an expression and a zone; see `Timetable.check`.

    Raises:
        Refused: INVALID_METADATA, INVALID_NAME, INVALID_RATE_LIMIT, INVALID_LIMITS, or
            DEPLOY_REJECTED for an engine that is not here.
    """
    given: Metadata = decode_json(
        raw,
        Metadata,
        what="metadata",
        not_json=faults.INVALID_METADATA,
        wrong=faults.INVALID_METADATA,
    )
    name = check_name(given.name)
    try:
        rate_limit = parse_rate_limit(given.rate_limit)
    except UserError as error:
        raise faults.INVALID_RATE_LIMIT.refuse(f"{error.message}; {error.hint}") from None
    return Declared(
        name,
        rate_limit,
        _limits(given.limits),
        _engine(given.engine),
        _egress(given.egress),
        _schedules(given.schedules, cron),
    )


def check_name(value: object) -> FunctionName:
    """A function's name. Raises `Refused` INVALID_NAME. Source: contract A.2."""
    if not isinstance(value, str) or FUNCTION_NAME.match(value) is None:
        said = "the function's name is missing, or no string"
        if isinstance(value, str):
            said = f"{value[:64]!r} is no function name"
        raise faults.INVALID_NAME.refuse(
            f"{said}; it begins with a-z, goes on with a-z, 0-9, _ or -, "
            "and has at most 58 characters"
        )
    return FunctionName(value)


def _limits(value: object) -> Mapping[str, int]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise faults.INVALID_LIMITS.refuse("limits must be an object of names and numbers")
    settings = {setting.name: setting for setting in limits.SETTINGS}
    checked: dict[str, int] = {}
    for name, number in cast(dict[str, Any], value).items():
        setting = settings.get(name)
        if setting is None:
            raise faults.INVALID_LIMITS.refuse(
                f"limits.{name[:40]} is unknown; there are {', '.join(settings)}"
            )
        low, high = setting.minimum, setting.maximum
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole or not (low <= number <= high or (setting.off and number == 0)):
            off = ", or 0 to switch it off" if setting.off else ""
            raise faults.INVALID_LIMITS.refuse(
                f"limits.{name} must be a whole number from {low} to {high}{off}"
            )
        checked[name] = number
    return checked


def _egress(value: object) -> EgressRules:
    if value is None:
        return NO_RULES
    try:
        return EgressRules.of(value)
    except RuleError as error:
        at = ".".join(("egress", *(str(part) for part in error.path)))
        raise faults.INVALID_METADATA.refuse(f"{at}: {error}") from None


def _engine(value: object) -> str:
    if value in _LATER_ENGINES:
        raise faults.rejected(
            (
                Violation(
                    ViolationCode.NOT_EMULATED,
                    f"the engine {value} is not in this release",
                    "leave out engine, or write workerd",
                ),
            )
        )
    if value is not None and value not in _ENGINES:
        raise faults.INVALID_METADATA.refuse(f"engine must be one of {', '.join(_ENGINES)}")
    return "workerd"


def _schedules(value: Any, cron: Callable[[str, str], str]) -> tuple[Line, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise faults.INVALID_METADATA.refuse("schedules must be a list")
    given = cast("list[object]", value)
    if len(given) > limits.SCHEDULES_OF_FUNCTION.value:
        raise faults.INVALID_METADATA.refuse(
            f"schedules: a function has at most {limits.SCHEDULES_OF_FUNCTION.value}"
        )
    return tuple(_schedule(f"schedules[{at}]", item, cron) for at, item in enumerate(given))


def _schedule(place: str, item: object, cron: Callable[[str, str], str]) -> Line:
    table: dict[str, object] = {"cron": item} if isinstance(item, str) else {}
    if isinstance(item, dict):
        table = cast(dict[str, object], item)
    text, zone = table.get("cron"), table.get("timezone", "UTC")
    missed = table.get("missed", "skip")
    if not isinstance(text, str):
        raise faults.INVALID_METADATA.refuse(
            f'{place}.cron must be five fields such as "*/5 * * * *"'
        )
    if not isinstance(zone, str):
        raise faults.INVALID_METADATA.refuse(
            f'{place}.timezone must be an IANA zone such as "Europe/Berlin"'
        )
    if missed not in ("skip", "run_once"):
        raise faults.INVALID_METADATA.refuse(f'{place}.missed must be "skip" or "run_once"')
    try:
        return cron(text, zone), zone, str(missed)
    except faults.Refused as refusal:
        part = "timezone" if refusal.fault is faults.INVALID_TIMEZONE else "cron"
        raise faults.INVALID_METADATA.refuse(
            f"{place}.{part}: {refusal.problem.message}", {"field": f"{place}.{part}"}
        ) from None
