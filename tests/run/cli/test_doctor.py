"""`amba-run doctor`: a machine that is well, and one where the engine is missing."""

from __future__ import annotations

import json

import pytest
from tests.run.cli.conftest import Command

pytestmark = pytest.mark.slow

NAMES = {
    *("python", "libc", "workerd", "engine", "esbuild", "sandbox", "dns", "ipv6", "files"),
    *("tmp", "watching"),
}


def test_a_machine_on_which_the_tests_run_is_well(command: Command) -> None:
    """Every part is run and told; exit 0; the sandbox in force is said bluntly."""
    done = command("doctor", "--json")
    told = json.loads(done.out)
    assert (done.code, told["ok"]) == (0, True)
    assert {check["name"] for check in told["checks"]} >= NAMES
    found = {check["name"]: check for check in told["checks"]}
    assert found["workerd"]["detail"].startswith("workerd 20")
    assert found["esbuild"]["detail"].startswith("esbuild 0.")
    assert "no wall but the engine's own" in found["sandbox"]["detail"]
    assert [c for c in told["checks"] if c["state"] != "ok" and not c["fix"]] == []
    text = command("doctor").out
    assert text.endswith("all is well\n")


def test_a_fault_is_told_with_its_fix(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 when something is broken; the rest is looked at all the same."""
    monkeypatch.setenv("AMBA_RUN_WORKERD", "/nowhere/workerd")
    monkeypatch.setenv("AMBA_RUN_ESBUILD", "/bin/false")
    done = command("doctor")
    assert done.code == 1
    assert "fail  workerd   AMBA_RUN_WORKERD names no workerd program" in done.out
    assert "fail  esbuild   /bin/false --version ended with 1" in done.out
    assert "fix: unset AMBA_RUN_ESBUILD" in done.out
    assert "ok    watching" in done.out
    assert "something is broken" in done.out
