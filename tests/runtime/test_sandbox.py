"""The walls say what they are: today there are none, and nothing pretends otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amba_runtime.engine.workerd.engine import WorkerdEngine
from amba_runtime.sandbox import Sandbox


def test_tier_0_wraps_nothing_and_says_so() -> None:
    """What claims no wall runs the very command it was given (reliability.md 4.2, tier 0)."""
    sandbox = Sandbox()
    argv = ["/bin/engine", "serve", "--flag=a b", "", "é"]
    assert sandbox.tier == 0
    assert "no wall" in sandbox.description
    assert sandbox.wrap(argv) == tuple(argv)
    assert argv == ["/bin/engine", "serve", "--flag=a b", "", "é"]


def test_the_engine_starts_nothing_but_what_the_walls_made() -> None:
    """A sandbox that wraps is obeyed: the engine's command line is its answer (tier 1 to come)."""

    class Jail(Sandbox):
        def wrap(self, argv: Sequence[str]) -> tuple[str, ...]:
            return ("jail", "--", argv[0])

    engine = WorkerdEngine(program=Path("/opt/workerd"), sandbox=Jail(1, "a jail"))
    assert engine.command(Path("config.bin")) == ("jail", "--", "/opt/workerd")


def test_an_engine_without_a_word_has_the_plain_walls() -> None:
    """The default command begins with the program itself."""
    engine = WorkerdEngine(program=Path("/opt/workerd"))
    assert engine.command(Path("config.bin"))[:2] == ("/opt/workerd", "serve")
