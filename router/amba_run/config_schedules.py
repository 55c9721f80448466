"""`schedules` of a function in the configuration file: the same rules as the platform API's.

Loaded for files that have some: whatever has none does not pay for cron and time zones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.triggers.cron import parse

from .config_values import Schedule
from .problems import KeyPath

if TYPE_CHECKING:
    from .config_reader import ConfigReader


def read_schedule(reader: ConfigReader, path: KeyPath, value: object) -> Schedule | None:
    """One entry; what is wrong with it is noted."""
    plain = isinstance(value, str)
    if plain:
        value = {"cron": value}
    table = reader.table(path, value, ("cron", "timezone", "missed"), required=("cron",))
    cron, timezone = table.get("cron"), table.get("timezone", "UTC")
    missed = table.get("missed", "skip")
    if missed not in ("skip", "run_once"):
        reader.wrong((*path, "missed"), 'one of "skip", "run_once"', missed)
    if not isinstance(timezone, str):
        expected = 'an IANA zone such as "Europe/Berlin"'
        reader.wrong((*path, "timezone"), expected, timezone)
        timezone = "UTC"
    if not isinstance(cron, str):
        if "cron" in table:
            reader.wrong((*path, "cron"), 'five cron fields such as "*/5 * * * *"', cron)
        return None
    try:
        return Schedule(parse(cron, timezone).text, timezone, str(missed))
    except faults.Refused as refusal:
        part = "timezone" if refusal.fault is faults.INVALID_TIMEZONE else "cron"
        reader.note(path if plain else (*path, part), refusal.problem.message)
        return None
