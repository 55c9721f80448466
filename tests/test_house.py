"""Every rule of the house that a test can hold. Source: architecture.md 1 and 5, style.md."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from amba_router import headers
from amba_run.cli import COMMANDS
from amba_runtime import limits
from amba_runtime.errors import InternalCode, UserCode
from amba_runtime.outcome import ANSWERS, Answer

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for package in (
        "runtime/amba_runtime",
        "bundler/amba_bundler",
        "router/amba_router",
        "router/amba_run",
    )
    for path in (ROOT / package).rglob("*.py")
)
LINES_MAX = 400
TABLES = {
    "runtime/amba_runtime/limits.py": "every number has its name, unit, bound and source there"
}
"""Modules that may be longer, and why: nothing in them has to be understood at once."""
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)
READMES = ("README.md", "runtime/README.md", "bundler/README.md", "router/README.md")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _attributes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Dotted names that a module reads: (line, `os.environ`)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def _imports_of(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Names that are imported from a module, as `_attributes` gives them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == module:
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _docs() -> str:
    return "\n".join((ROOT / name).read_text() for name in READMES)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_each_module_says_what_it_knows(path: Path) -> None:
    """The first line of a module is a docstring, the second statement the future import."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{_name(path)} has no docstring"
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
        imported = tree.body[1]
        assert isinstance(imported, ast.ImportFrom)
        assert imported.module == "__future__"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_module_is_a_house_of_its_own(path: Path) -> None:
    """Around 120 lines; 400 is the end, but for a table (style.md)."""
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX or _name(path) in TABLES


ONE_HOME = {
    "the environment": (r"os\.(environ|environb|getenv|putenv)$", {"router/amba_run/config.py"}),
    "the time": (
        r"(time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|sleep)|datetime\.(now|utcnow|today)"
        r"|date\.today)$",
        {"runtime/amba_runtime/clock.py"},
    ),
    "randomness": (
        r"(os\.urandom|random\.\w+|uuid\.uuid\d|secrets\.(token_\w+|choice|randbelow))$",
        {"runtime/amba_runtime/entropy.py"},
    ),
}


@pytest.mark.parametrize("what", ONE_HOME)
def test_some_things_have_one_home(what: str) -> None:
    """One module each reads the environment, the time, random bits (architecture.md 5)."""
    pattern, homes = ONE_HOME[what]
    found = [
        f"{_name(path)}:{line} {name}"
        for path in SOURCES
        if _name(path) not in homes
        for line, name in _attributes(ast.parse(path.read_text()))
        if re.match(pattern, name)
    ]
    assert found == []


def test_nothing_sleeps() -> None:
    """Waiting goes through the clock; `asyncio.sleep(0)` is no waiting (architecture.md 5)."""
    found = [
        f"{_name(path)}:{node.lineno}"
        for path in SOURCES
        if _name(path) != "runtime/amba_runtime/clock.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("asyncio.sleep", "time.sleep")
        and ast.unparse(node.args[0]) != "0"
    ]
    assert found == []


def test_tests_sleep_in_one_place() -> None:
    """Tests wait for what they mean, within a bound; `tests/waiting.py` alone sleeps (style.md)."""
    found = [
        f"{_name(path)}:{line} {name}"
        for path in TESTS
        if _name(path) != "tests/waiting.py"
        and not _name(path).startswith(("tests/drills/", "tests/bench/"))
        for line, name in [
            *_attributes(ast.parse(path.read_text())),
            *_imports_of(ast.parse(path.read_text()), "time"),
        ]
        if name == "time.sleep"
    ]
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_what_catches_everything_says_why(path: Path) -> None:
    """A broad `except` that does not raise again has a comment in it, or above it (style.md)."""
    lines = path.read_text().splitlines()
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = "everything" if node.type is None else ast.unparse(node.type)
        last = node.body[-1]
        again = isinstance(last, ast.Raise) and last.exc is None
        if caught in ("everything", "Exception", "BaseException") and not again:
            beside = lines[max(0, node.lineno - 2) : node.end_lineno]
            if not any("# " in line for line in beside):
                found.append(f"{_name(path)}:{node.lineno} catches {caught}")
    assert found == []


def test_an_ignored_type_says_which_and_why() -> None:
    """`type: ignore` names its code, and a reason behind it (style.md, types)."""
    found: list[str] = []
    for path in [*SOURCES, *TESTS, ROOT / "hatch_build.py"]:
        if "type: ignore" not in path.read_text():
            continue
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if (
                    token.type == tokenize.COMMENT
                    and token.string.startswith("# type: ignore")
                    and not re.fullmatch(r"# type: ignore\[[a-z,-]+\]  # \S.*", token.string)
                ):
                    found.append(f"{_name(path)}:{token.start[0]} {token.string}")
    assert found == []


def test_header_names_have_one_home() -> None:
    """`x-amba-*` stands in headers.py alone; a docstring may speak of it (architecture.md 5)."""
    found: list[str] = []
    for path in SOURCES:
        if _name(path) == "router/amba_router/headers.py":
            continue
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in docstrings:
                text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
                if isinstance(text, str) and "x-amba-" in text.lower() and "*" not in text:
                    found.append(f"{_name(path)}:{node.lineno} {text[:60]!r}")
    assert found == []


def test_sql_has_one_home() -> None:
    """Nothing outside `store/` imports a database (architecture.md 5)."""
    found = [
        _name(path)
        for path in SOURCES
        if "/store/" not in _name(path)
        and re.search(r"^\s*(import|from) (sqlite3|sqlalchemy)", path.read_text(), re.MULTILINE)
    ]
    assert found == []


HOME_OF_STATEMENTS = frozenset(
    {
        # before there were projects, or about them
        *("adoption", "control", "credential_rows", "database", "deployment_rows", "failures"),
        *("keyfile", "objects", "project_rows", "queries", "repair", "secret_rows", "snapshots"),
        *("snapshot_rows", "state", "schema", "service_schema", "sql_functions"),
        # starts and sweeps, for all projects at once
        *("trigger_schema", "trigger_sweeps"),
        # makes those of services
        "scoped",
        # tables that are one project's alone: `coll_N`, found through its row of `collections`
        *("collection_ddl", "collection_tables", "filter_sql", "row_pages"),
        *("edge_db_rows", "edge_db_sql", "edge_db_values"),
    }
)


def test_statements_of_services_have_their_projects_id() -> None:
    """A service's module of the store makes none by itself: `Scoped` puts the id in (issue 5)."""
    makes = {"select", "insert", "update", "delete", "text", "union"}
    found = [
        path.stem
        for path in SOURCES
        if "/store/" in _name(path) and "migrations" not in _name(path)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("sqlalchemy")
        and makes.intersection(alias.name for alias in node.names)
    ]
    assert sorted(set(found) - HOME_OF_STATEMENTS) == []
    assert {"config_rows", "currency_rows", "user_rows"}.isdisjoint(found)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_module_keeps_state(path: Path) -> None:
    """What a module binds to a list, dict or set is a constant, by its name (architecture.md 5)."""
    found: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp):
            found += [
                target.id
                for target in targets
                if isinstance(target, ast.Name)
                and not target.id.lstrip("_").isupper()
                and target.id != "__all__"
            ]
    assert found == []


def test_the_top_level_is_fixed() -> None:
    """No other visible folder, no other file than tools expect (architecture.md 1)."""
    visible = {path.relative_to(ROOT).parts[0] for path in _tracked()}
    assert {name for name in visible if not name.startswith(".")} == {
        "AGENTS.md", "CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "bundler", "fixtures",
        "hatch_build.py", "package-lock.json", "package.json", "pins.txt", "pyproject.toml",
        "router", "runtime", "tests",
    }  # fmt: skip


def test_nothing_tracked_names_a_registry_or_this_machine() -> None:
    """Lock files carry versions and hashes only; no path of a machine is committed."""
    registries = re.compile(r"(npmjs|pythonhosted|yarnpkg|pypi|deb\.debian)" + r"\.(org|com)")
    here = str(ROOT.parent) + "/"
    machine = re.compile(re.escape(here)) if here.count("/") > 1 else None
    found: list[str] = []
    for path in _tracked():
        text = path.read_bytes().decode("utf-8", "replace")
        if registries.search(text):
            found.append(f"{_name(path)}: a package registry")
        if machine is not None and not here.startswith("/tmp/") and machine.search(text):
            found.append(f"{_name(path)}: a path of this machine")
    assert found == []


def test_no_secret_is_compared_in_the_open() -> None:
    """Signatures and MACs meet `compare_digest` only (reliability.md B9)."""
    found: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
                sides = [node.left, *node.comparators]
                names = {n.id for s in sides for n in ast.walk(s) if isinstance(n, ast.Name)}
                names |= {
                    n.attr for s in sides for n in ast.walk(s) if isinstance(n, ast.Attribute)
                }
                if names & {"mac", "mac_hex", "signature", "token", "pat"}:
                    found.append(f"{_name(path)}:{node.lineno}")
    assert found == []


def test_stamped_headers_are_exactly_nine() -> None:
    """Seven meanings, two of them under two spellings (contract A.3)."""
    assert len(headers.STAMPED) == len(set(headers.STAMPED)) == 9
    assert all(headers.is_reserved(name) for name in headers.STAMPED)


# --- documentation ---


def test_the_readme_has_its_two_commands() -> None:
    """Two commands, each one line: one serves the samples, one passes the tests."""
    lines = [
        line.strip()
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("    python3 -m venv ")
    ]
    assert len(lines) == 2
    assert lines[0].endswith("amba-run dev fixtures")
    assert lines[1].endswith("-m pytest")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_documented(name: str) -> None:
    """router/README.md has a row for it, and the module exists."""
    assert f"| `amba-run {name}" in (ROOT / "router/README.md").read_text()
    assert importlib.util.find_spec(f"amba_run.cli.{name}") is not None


def test_each_option_of_dev_is_documented() -> None:
    """router/README.md has a row for each."""
    from amba_run.cli.dev import command

    text = (ROOT / "router/README.md").read_text()
    options = [opt for p in command.params for opt in p.opts if opt.startswith("--")]
    assert [option for option in options if f"| `{option}" not in text] == []


@pytest.mark.parametrize("code", [*UserCode, *InternalCode])
def test_each_error_code_is_documented(code: str) -> None:
    """Some README of ours has it in backticks."""
    assert f"`{code}`" in _docs()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=lambda a: str(a.code))
def test_each_outcome_is_documented(answer: Answer) -> None:
    """router/README.md names the code and its status."""
    text = (ROOT / "router/README.md").read_text()
    row = next(line for line in text.splitlines() if f"`{answer.code}`" in line)
    assert str(answer.status) in row


def test_each_wire_code_is_documented() -> None:
    """Every `Problem(status, "CODE", ...)` in the code has a row."""
    text = (ROOT / "router/README.md").read_text()
    found: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Problem"
                and len(node.args) > 1
                and isinstance(node.args[1], ast.Constant)
                and f"`{node.args[1].value!s}`" not in text
            ):
                found.append(f"{_name(path)}: {node.args[1].value!s}")
    assert found == []


def test_each_environment_variable_is_documented() -> None:
    """router/README.md names what config.py reads."""
    text = (ROOT / "router/README.md").read_text()
    source = (ROOT / "router/amba_run/config.py").read_text()
    names = re.findall(r'_set\(variables, "([A-Z_]+)"', source)
    assert len(names) >= 6
    assert [name for name in names if f"`{name}`" not in text] == []


def test_generated_tables_are_current() -> None:
    """The limits in runtime/README.md are those of limits.py: `python .ci/docs_tables.py`."""
    script = _script("docs_tables")
    text = (ROOT / "runtime/README.md").read_text()
    assert script.with_tables(text, "runtime/README.md") == text
    for name, value in vars(limits).items():
        if isinstance(value, limits.Limit | limits.Deadline):
            assert f"`{name}`" in text


def test_the_changelog_knows_this_version() -> None:
    """A line per user-visible change, under the version that ships it."""
    from amba_run import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned() -> None:
    """pins.txt has a hash for each requirement that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {
        line.split("==")[0] for line in (ROOT / "pins.txt").read_text().splitlines() if "==" in line
    }
    wanted = [*project["project"]["dependencies"]]
    for group in ("test", "lint"):
        wanted += project["dependency-groups"][group]
    names = {re.split(r"[\[><=;! ]", item)[0].lower() for item in wanted}
    assert names - {name.split("[")[0].lower() for name in pinned} == set()


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
