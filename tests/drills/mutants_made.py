"""Making mutants: cosmic-ray finds the places, and we leave out what no test could tell apart.

Left out, by these rules alone:

- annotations (never evaluated: `from __future__ import annotations`) and the imports for them;
- the flags of a `@dataclass(...)` line: a promise to type checkers; taking it away stays in;
- calls of a `logger`: words for people;
- `is` as `==`, `is not` as `!=`, and back, with None or an enum's member: one object each, which
  equals nothing but itself;
- `==` as `is` with a literal: the interpreter shares most literals, and our linter lets none pass;
- stars that are no operators (`*, name` among parameters, `*(1, 2)`), which cosmic-ray takes for
  some.
"""

from __future__ import annotations

import ast
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.drills.nodes import DrillError

MAKE_S = 900.0
"""Seconds that one run of cosmic-ray may take."""

_MAKER = """
import json, sys, warnings
from pathlib import Path
import cosmic_ray.mutating, cosmic_ray.plugins
warnings.simplefilter("ignore")
for line in sys.stdin:
    path, operator, occurrence = json.loads(line)
    made = cosmic_ray.plugins.get_operator(operator)()
    try:
        code = cosmic_ray.mutating.mutate_code(Path(path).read_text(), made, occurrence)
    except AttributeError:  # `except (a.B, C)` is beyond it
        code = None
    print(json.dumps(code))
"""
_SAME = ("_Is_Eq", "_IsNot_NotEq", "_Eq_Is", "_NotEq_IsNot")

Span = tuple[tuple[int, int], tuple[int, int]]
"""(line, column) of begin and end, the end excluded."""


@dataclass(frozen=True, slots=True)
class Place:
    """One mutant that can be made; line from 1, column from 0, as `ast` has them."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int


def places(copy: Path, modules: Sequence[str]) -> list[Place]:
    """All there are in these modules, less those that the rules leave out, in one order."""
    with tempfile.TemporaryDirectory() as folder:
        session = Path(folder) / "session.sqlite"
        config = Path(folder) / "mutants.toml"
        config.write_text(
            f"[cosmic-ray]\nmodule-path = {json.dumps(list(modules))}\ntimeout = 9.0\n"
            'excluded-modules = []\ntest-command = "true"\n'
            '[cosmic-ray.distributor]\nname = "local"\n'
        )
        _ask([str(_program("cosmic-ray")), "init", str(config), str(session)], copy, "")
        with sqlite3.connect(session) as rows:
            found = rows.execute(
                "SELECT module_path, operator_name, occurrence, start_pos_row, start_pos_col "
                "FROM mutation_specs"
            ).fetchall()
    trees = {module: Untold.of((copy / module).read_text()) for module in modules}
    listed = (Place(*row) for row in sorted(found))
    return [place for place in listed if not trees[place.module].covers(place)]


def make(copy: Path, wanted: Sequence[Place]) -> list[str | None]:
    """The source of each mutant; None for one that cosmic-ray lists and cannot make."""
    asked = "".join(json.dumps([p.module, p.operator, p.occurrence]) + "\n" for p in wanted)
    told = _ask([str(_program("python")), "-c", _MAKER], copy, asked)
    return [json.loads(line) for line in told.splitlines()]


@dataclass(frozen=True, slots=True)
class Untold:
    """Where in a source a change tells nobody anything.

    Attributes:
        spans: whatever the change is.
        alike: comparisons with None, an enum's member or a literal.
        sums: of two operands, whatever their operator: a change elsewhere is of no operator.
    """

    spans: tuple[Span, ...]
    alike: tuple[Span, ...]
    sums: tuple[Span, ...]

    @classmethod
    def of(cls, source: str) -> Untold:
        """Read a source."""
        spans: list[ast.expr | ast.stmt] = []
        alike: list[ast.expr] = []
        sums: list[ast.expr | ast.stmt] = []
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.arg(annotation=ast.expr() as told) | ast.AnnAssign(annotation=told):
                    spans.append(told)
                case ast.FunctionDef() | ast.AsyncFunctionDef() if node.returns is not None:
                    spans.append(node.returns)
                case ast.ClassDef():
                    for decorator in node.decorator_list:
                        if isinstance(decorator, ast.Call):
                            spans += [keyword.value for keyword in decorator.keywords]
                case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"))):
                    spans.append(node)
                case ast.Compare() if any(map(_single, (node.left, *node.comparators))):
                    alike.append(node)
                case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    spans.append(node)
                case ast.BinOp() | ast.AugAssign():
                    sums.append(node)
                case _:
                    pass
        return cls(*(tuple(map(_span, nodes)) for nodes in (spans, alike, sums)))

    def covers(self, place: Place) -> bool:
        """A mutant there is left out."""
        if place.operator.endswith(_SAME) and _within(place, self.alike):
            return True
        if "ReplaceBinaryOperator" in place.operator and not _within(place, self.sums):
            return True
        return _within(place, self.spans)


def _within(place: Place, spans: tuple[Span, ...]) -> bool:
    return any(begin <= (place.line, place.column) < end for begin, end in spans)


def _single(node: ast.expr) -> bool:
    """None, a literal, or by its spelling an enum's member (`Plane.CDN`)."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Attribute) and node.attr.isupper()
    )


def _span(node: ast.expr | ast.stmt) -> Span:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _ask(command: list[str], folder: Path, asked: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        input=asked,
        capture_output=True,
        text=True,
        timeout=MAKE_S,
        check=False,
    )
    if done.returncode != 0:
        raise DrillError(f"cosmic-ray: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _program(name: str) -> Path:
    """Of an environment made for cosmic-ray, and kept between runs."""
    home = Path(tempfile.gettempdir()) / f"amba-drill-mutants-{os.getuid()}"
    if not (home / "bin" / "cosmic-ray").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "cosmic-ray>=8.7,<9"], check=True)
    return home / "bin" / name
