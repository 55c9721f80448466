"""The settings table and the limits made from it."""

from __future__ import annotations

import dataclasses

import pytest

from amba_runtime.limits import KIB, MIB, SETTINGS, FunctionLimits, Setting

NAMES = [setting.name for setting in SETTINGS]


def test_the_thirteen_settings() -> None:
    """Names and order are those of interface.md section 4, and the fields of FunctionLimits."""
    published = (
        "cpu_ms first_byte_ms idle_ms total_ms startup_ms memory_mib request_body_mib "
        "response_header_kib subrequests subrequests_at_once concurrency log_kib trace_depth"
    )
    assert published.split() == NAMES
    assert [field.name for field in dataclasses.fields(FunctionLimits)] == NAMES


@pytest.mark.parametrize("setting", SETTINGS, ids=NAMES)
def test_defaults_lie_within_bounds(setting: Setting) -> None:
    """Both defaults can be written; 0 is one only where it means off (reliability.md 2.3)."""
    for default in (setting.dev, setting.hosted):
        within = setting.minimum <= default <= setting.maximum
        assert within or (setting.off and default == 0)
    assert 0 < setting.minimum < setting.maximum
    assert setting.source


def test_published_defaults() -> None:
    """The two columns of reliability.md 2.3, and the 4 GiB a body can be set to."""
    dev, hosted = FunctionLimits.dev(), FunctionLimits.hosted()
    assert dataclasses.astuple(dev) == (
        *(0, 60_000, 60_000, 0, 1_000, 512, 100, 64, 1_000, 6, 100, 256, 16),
    )
    assert dataclasses.astuple(hosted) == (
        *(10_000, 25_000, 30_000, 300_000, 1_000, 256, 100, 64, 1_000, 6, 50, 256, 16),
    )
    assert next(s.maximum for s in SETTINGS if s.name == "request_body_mib") == 4096


def test_override_and_bytes() -> None:
    """Set values replace, the rest stays; sizes come out in bytes."""
    function = FunctionLimits.dev().override({"request_body_mib": 2048, "log_kib": 1})
    assert function.request_body_bytes == 2048 * MIB
    assert function.response_header_bytes == 64 * KIB
    assert function.log_bytes == KIB
    assert function.override({}) == function


@pytest.mark.parametrize(
    ("mine", "most", "result"), [(5, 9, 5), (9, 5, 5), (5, 5, 5), (0, 5, 5), (5, 0, 5), (0, 0, 0)]
)
def test_clamp(mine: int, most: int, result: int) -> None:
    """A node lowers to its own maxima, and what is off to them too (interface.md section 4)."""
    limits = FunctionLimits.dev().override({"cpu_ms": mine})
    maxima = FunctionLimits.dev().override({"cpu_ms": most})
    assert limits.clamp(maxima) == limits.override({"cpu_ms": result})
