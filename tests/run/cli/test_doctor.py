"""`amba-run doctor`: a machine that is well, and one where the engine is missing."""

from __future__ import annotations

import json
import re

import pytest
from tests.run.cli.conftest import Command

pytestmark = pytest.mark.slow

NAMES = {
    *(
        "python",
        "libc",
        "workerd",
        "engine",
        "esbuild",
        "sandbox",
        "memory",
        "dns",
        "ipv6",
        "files",
    ),
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
    assert re.match(r"tier [123]: ", found["sandbox"]["detail"])
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


def test_an_attack_says_each_try(command: Command) -> None:
    """`--attack`: a line per try, the sum, and an exit code that says whether a wall is missing."""
    done = command("doctor", "--attack", "--json")
    told = json.loads(done.out)
    assert (done.code == 0) is told["ok"] is (told["walls"]["ok"] and told["ways_out"]["ok"])
    assert told["ways_out"]["connections"] == 0
    assert told["ways_out"]["answered"] == {}
    if told["tier"] >= 2:
        assert told["walls"]["ok"]
        verdicts = {row["name"]: row["verdict"] for row in told["walls"]["tries"]}
        assert verdicts["socket AF_INET"] == "refused"
        assert verdicts["socket AF_UNIX"] == "needed"
    text = command("doctor", "--attack").out
    assert f"walls  tier {told['tier']}: " in text
    assert " requests, 0 connections, 0 answers\n" in text
    last = "no wall is missing" if told["ok"] else "a wall is missing: see the lines above"
    assert text.endswith(f"{last}\n")


def test_an_attack_that_gets_through_is_told(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holes, answers and faults each have a line; exit 1 (reliability.md F1, G1)."""
    from amba_run import attack
    from amba_runtime.sandbox.escape import Finding, Verdict

    found = attack.Walls(
        1, "few", (Finding("fork", "open", Verdict.HOLE),), notes=("no bwrap",), fix="install it"
    )
    way = attack.WaysOut(2, connections=1, answered={"http://127.1/": "200 \x1b[31mcanary"})

    async def play(_program: object) -> tuple[attack.Walls, attack.WaysOut]:
        return found, way

    monkeypatch.setattr(attack, "attack", play)
    done = command("doctor", "--attack")
    assert done.code == 1
    assert "hole       fork" in done.out
    assert "not higher: no bwrap" in done.out
    assert "there are no walls at this tier" in done.out
    assert "fix: install it" in done.out
    assert "hole       http://127.1/  200" in done.out
    assert "\x1b" not in done.out
    found = attack.Walls(3, "strong", fault="it did not run")
    way = attack.WaysOut(fault="it did not start")
    done = command("doctor", "--attack")
    assert done.code == 1
    assert "fail: it did not run" in done.out
    assert "fail: it did not start" in done.out
    assert json.loads(command("doctor", "--attack", "--json").out)["ok"] is False
