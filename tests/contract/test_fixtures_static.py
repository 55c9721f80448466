"""What can be said about the sample functions without running one (issue 2, item 7)."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import amba_bundler
from amba_runtime.manifest import FUNCTION_NAME

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
GUESTS = ROOT / "tests" / "guests"

FIRST_LINE = re.compile(r"// Shows: (?P<shows>.+)\. GET / answers (?P<status>[2-5]\d\d)\.")
REFUSED_LINE = re.compile(r"// Shows: (?P<shows>.+)\. It is refused\.")
TABLE_ROW = re.compile(r"\| \[`(?P<name>[^`]+)`\]\((?P<path>[^)]+)\) \| .+ \| (?P<status>\d{3}) \|")
URL = re.compile(r"\b(?:https?|wss?)://[^\s\"'`<>)]*")
EXAMPLE_HOST = re.compile(r"(?:.+\.)?(?:example|example\.com|localhost)|127\.0\.0\.1|\[::1\]")
SECRET_USE = re.compile(r"\benv\.([A-Z][A-Z0-9_]*)")
PLATFORM_ENV = {
    "AMBA_API_URL",
    "AMBA_PROJECT_ID",
    "AMBA_INTERNAL_TOKEN",
    "AMBA_AI_GATEWAY_URL",
    "AMBA_CDN_HOST",
    "EDGE_HEADER_SIGNING_SECRET",
    "STORAGE",
}
BUILD_OPTIONS = (
    "--bundle",
    "--format=esm",
    "--platform=browser",
    "--target=es2022",
    "--conditions=workerd,worker,browser,import",
    "--loader:.txt=text",
    "--loader:.md=text",
    "--log-level=error",
)


def entries(folder: Path) -> dict[str, Path]:
    """Folder name -> its index file, as `amba-run dev` finds functions (interface.md 2)."""
    return {
        entry.parent.name: entry
        for entry in sorted(folder.glob("*/index.*"))
        if entry.suffix in {".ts", ".tsx", ".js", ".mjs"}
    }


def first_line(entry: Path) -> str:
    return entry.read_text("utf-8").split("\n", 1)[0]


def build(entry: Path) -> subprocess.CompletedProcess[str]:
    program = next((Path(amba_bundler.__file__).parent / "native").glob("esbuild*"))
    return subprocess.run(
        [str(program), str(entry), *BUILD_OPTIONS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=30,
    )


def sources(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def table() -> dict[str, tuple[str, int]]:
    """README's rows: function name -> (path of the entry file, status)."""
    rows = TABLE_ROW.finditer((FIXTURES / "README.md").read_text("utf-8"))
    return {row["name"]: (row["path"], int(row["status"])) for row in rows}


FIXTURE_ENTRIES = entries(FIXTURES)
GUEST_ENTRIES = {name: entry for name, entry in entries(GUESTS).items() if name != "storage-suite"}
BROKEN_GUESTS = {"syntax-error"}


def test_every_fixture_folder_is_a_function() -> None:
    """A folder under fixtures/ has one index file and a name that deploys (contract A.2)."""
    folders = {p.name for p in FIXTURES.iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert folders == set(FIXTURE_ENTRIES)
    assert [name for name in folders if FUNCTION_NAME.fullmatch(name) is None] == []
    assert [name for name in folders if len(list((FIXTURES / name).glob("index.*"))) != 1] == []


@pytest.mark.parametrize("name", FIXTURE_ENTRIES)
def test_fixture_says_what_it_shows_and_answers(name: str) -> None:
    """The first line is readable by machines: the end-to-end test takes its status from it."""
    line = first_line(FIXTURE_ENTRIES[name])
    assert FIRST_LINE.fullmatch(line), line


@pytest.mark.parametrize("name", FIXTURE_ENTRIES)
def test_fixture_bundles_into_one_module(name: str) -> None:
    """esbuild makes one module with no import left in it (contract B: one is a refused upload)."""
    done = build(FIXTURE_ENTRIES[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^import\b.*", done.stdout, re.MULTILINE) == []


def test_readme_lists_each_fixture_with_its_status() -> None:
    """README's table has one row per fixture, with the entry file and status of its first line."""
    expected: dict[str, tuple[str, int]] = {}
    for name, entry in FIXTURE_ENTRIES.items():
        told = FIRST_LINE.fullmatch(first_line(entry))
        assert told is not None
        expected[name] = (f"{name}/{entry.name}", int(told["status"]))
    assert table() == expected


@pytest.mark.parametrize("folder", [FIXTURES, GUESTS], ids=["fixtures", "guests"])
def test_no_address_of_the_outside_world(folder: Path) -> None:
    """Only reserved example hosts and this machine are named: no registry, nothing that answers."""
    found = [
        f"{path.relative_to(ROOT)}: {url}"
        for path in sources(folder)
        if "storage-suite" not in path.parts
        for url in [match.group() for match in URL.finditer(path.read_text("utf-8"))]
        if not url.split("://", 1)[1].startswith("${")
        and EXAMPLE_HOST.fullmatch(urlsplit(url).hostname or "") is None
    ]
    assert found == []


def test_the_config_names_only_functions_that_are_there() -> None:
    """A table for an unknown name is an error of `dev` (interface.md 4)."""
    config = tomllib.loads((FIXTURES / "amba.toml").read_text("utf-8"))
    assert config["seed"] == {"folder": "_seed"}
    assert set(config) == {"functions", "queues", "seed"}
    consumers = {queue["function"] for queue in config["queues"].values()}
    assert {*config["functions"], *consumers} <= set(FIXTURE_ENTRIES)
    assert config["functions"]["digest"] == {"schedules": ["* * * * *"]}
    assert config["functions"]["never-answers"]["limits"] == {"first_byte_ms": 1000}


def test_the_secrets_file_gives_what_the_fixtures_read() -> None:
    """Each secret that a fixture reads has a sample value, and no sample is unused (contract C)."""
    used = {
        name
        for path in sources(FIXTURES)
        if path.suffix in {".ts", ".js"}
        for name in [match[1] for match in SECRET_USE.finditer(path.read_text("utf-8"))]
    }
    lines = (FIXTURES / ".dev.vars").read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == used - PLATFORM_ENV
    assert [name for name, value in given.items() if not value.startswith('"sample-')] == []


@pytest.mark.parametrize("name", GUEST_ENTRIES)
def test_guest_says_what_it_shows_and_what_becomes_of_it(name: str) -> None:
    """A test's own function says the same as a fixture, or that it is refused."""
    line = first_line(GUEST_ENTRIES[name])
    assert FIRST_LINE.fullmatch(line) or REFUSED_LINE.fullmatch(line), line


@pytest.mark.parametrize("name", sorted(set(GUEST_ENTRIES) - BROKEN_GUESTS))
def test_guest_bundles(name: str) -> None:
    """Whatever is wrong with a guest is wrong when it runs, not when it is built."""
    done = build(GUEST_ENTRIES[name])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "entry",
    [path for path in sorted((GUESTS / "hostile-globals").glob("*.js")) if path.name[0] != "_"],
    ids=lambda path: path.stem,
)
def test_hostile_variant_is_a_function_of_its_own(entry: Path) -> None:
    """Served as a folder, hostile-globals gives one function per variant (interface.md 2)."""
    assert FUNCTION_NAME.fullmatch(entry.stem)
    assert FIRST_LINE.fullmatch(first_line(entry)), first_line(entry)
    assert build(entry).returncode == 0


@pytest.mark.parametrize(
    "entry", sorted((GUESTS / "hostile").glob("*.js")), ids=lambda path: path.stem
)
def test_hostile_guest_says_what_it_does(entry: Path) -> None:
    """Each behaviour of the battery's group E is one file that is deployed as it lies there."""
    assert FUNCTION_NAME.fullmatch(entry.stem)
    line = first_line(entry)
    assert FIRST_LINE.fullmatch(line) or REFUSED_LINE.fullmatch(line), line


def test_broken_guest_fails_in_both_its_files() -> None:
    """The guest for build errors has two of them, so that a report of the first alone is seen."""
    done = build(GUEST_ENTRIES["syntax-error"])
    assert done.returncode == 1
    assert "syntax-error/greeting.ts:1:" in done.stderr
    assert "syntax-error/price.ts:2:" in done.stderr
