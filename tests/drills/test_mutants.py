"""The mutation drill's own judgement: what it leaves out, and that it finds what it looks for."""

from __future__ import annotations

import pytest
from tests.drills.mutants import PARTS, ROOT, judging, shown
from tests.drills.mutants_made import Place, Untold

SOURCE = '''\
"""A module."""
if TYPE_CHECKING:
    import other

@dataclass(frozen=True)
class Box:
    size: int | None = None

@cached
def first(a: int | str, *, b=1) -> int | None:
    logger.warning("%d", a + b)
    if a is None or b is not Kind.ONE:
        return a + b
    if a == "x" or a == b:
        return {*(1, 2)}
'''


def covered(what: str, operator: str) -> bool:
    """Whether a mutant at the first place of `what` is left out."""
    before, found, _ = SOURCE.partition(what)
    assert found
    line = before.count("\n") + 1
    column = len(before) - before.rfind("\n") - 1
    return Untold.of(SOURCE).covers(Place("m.py", f"core/{operator}", 0, line, column))


@pytest.mark.parametrize(
    ("what", "operator"),
    [
        ("| None = None", "ReplaceBinaryOperator_BitOr_Add"),
        ("| str", "ReplaceBinaryOperator_BitOr_Add"),
        ("| None:", "ReplaceBinaryOperator_BitOr_Add"),
        ("True", "ReplaceTrueWithFalse"),
        ("if TYPE", "AddNot"),
        ("+ b)\n    if", "ReplaceBinaryOperator_Add_Sub"),
        ("a is None", "ReplaceComparisonOperator_Is_Eq"),
        ("b is not Kind", "ReplaceComparisonOperator_IsNot_NotEq"),
        ('a == "x"', "ReplaceComparisonOperator_Eq_Is"),
        ("*, b", "ReplaceBinaryOperator_Mul_Div"),
        ("*(1, 2)", "ReplaceBinaryOperator_Mul_Div"),
    ],
)
def test_what_nobody_could_tell_apart_is_left_out(what: str, operator: str) -> None:
    """Each of the drill's rules, and only where it is meant (issue 4, row 12)."""
    assert covered(what, operator)


@pytest.mark.parametrize(
    ("what", "operator"),
    [
        ("None\n\n@cached", "NumberReplacer"),
        ("if a is", "AddNot"),
        ("@dataclass", "RemoveDecorator"),
        ("@cached", "RemoveDecorator"),
        ("1) ->", "NumberReplacer"),
        ("a is None", "ReplaceComparisonOperator_Is_IsNot"),
        ("b is not Kind", "ReplaceComparisonOperator_IsNot_Is"),
        ('a == "x"', "ReplaceComparisonOperator_Eq_NotEq"),
        ("a == b", "ReplaceComparisonOperator_Eq_Is"),
        ("a + b\n", "ReplaceBinaryOperator_Add_Sub"),
        ("or b is", "ReplaceOrWithAnd"),
        ("1, 2", "NumberReplacer"),
    ],
)
def test_everything_else_is_judged(what: str, operator: str) -> None:
    """No decision is left out (issue 4, row 12)."""
    assert not covered(what, operator)


def test_every_module_and_test_of_the_drill_is_there() -> None:
    """A module that moved would be judged by nobody, one named twice counts twice (row 12)."""
    named = [path for part in PARTS for module, tests in part.modules for path in (module, *tests)]
    assert [path for path in named if not (ROOT / path).is_file()] == []
    modules = [module for part in PARTS for module, _ in part.modules]
    assert len(modules) == len(set(modules))


def test_a_survivor_is_shown_with_its_place() -> None:
    """The line as it is, and as no test noticed it (issue 4, row 12)."""
    place = Place("m.py", "core/Op", 0, 2, 0)
    assert shown(place, "a\nb\nc\n", "a\nB\nc\n").splitlines() == [
        "  survived: m.py:2 core/Op",
        "    -b",
        "    +B",
    ]


@pytest.mark.slow
def test_a_mutant_is_judged_in_the_place_of_its_module() -> None:
    """Passed as it is; failed when it decides otherwise or cannot be imported; late when it does
    not end (issue 4, row 12).
    """
    module, tests = "runtime/amba_runtime/trace.py", ("tests/router/test_verdicts.py",)
    source = (ROOT / module).read_text()
    with judging(ROOT) as judge:

        def verdict(code: str | None, deadline_s: float = 30) -> str:
            return judge.ask(module, code, tests, deadline_s)[0]

        assert verdict(None) == "passed"
        assert verdict(source) == "passed"
        assert verdict(source.replace("depth: int = 0", "width: int = 0")) == "failed"
        assert verdict("import nothing_of_this_name") == "failed"
        assert verdict("while True: pass", 0.3) == "late"
        assert verdict(source) == "passed"
