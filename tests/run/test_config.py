"""Configuration files: what is kept, and that every problem is told at once with its place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from amba_run.config import (
    EgressTarget,
    EngineChoice,
    Environment,
    Missed,
    ProjectConfig,
    QueueBinding,
    RateLimit,
    RateLimitKey,
    Schedule,
    load_config,
)
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.limits import SETTINGS, FunctionLimits
from amba_runtime.secret import SecretText

FULL = """
project = "shop"
storage = false
compatibility_date = "2026-02-03"

[limits]
memory_mib = 128
cpu_ms = 50

[egress]
allow = ["localhost:5432", "API.example.com:443", "[::1]:8080", "10.0.0.1:6379"]

[queues]
orders = "hello"

[queues.mail]
function = "other"
status = "paused"
batch_size = 10
batch_wait_ms = 60000
consumers = 1
retries = 0
backoff_ms = 3600000

[queues."Fan.Mail-2_x"]
function = "other"

[ai]
fixtures = "_replies"

[functions.hello]
rate_limit = { window = "5m", max = 100, key = "ip" }
schedules = [
  "*/5  * * * *",
  { cron = "0 8 * * MON-FRI", timezone = "Europe/Berlin", missed = "run_once" },
]
engine = "workerd"

[functions.hello.limits]
cpu_ms = 0
request_body_mib = 2048

[functions.hello.egress]
only = ["API.stripe.com.", "*.example.com:8443"]

[functions.hello.egress.secrets]
STRIPE_KEY = ["api.stripe.com"]

[functions.other]
entry = "src/other.ts"
"""


def write(folder: Path, text: str, name: str = "amba.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path) -> list[dict[str, Any]]:
    """The problems of a folder that must not load."""
    with pytest.raises(UserError) as caught:
        load_config(folder)
    error = caught.value
    assert error.code is UserCode.INVALID_CONFIG
    assert error.hint
    problems: list[dict[str, Any]] = error.details["problems"]
    for problem in problems:
        assert problem["message"] in error.message
    return problems


def one(folder: Path, text: str) -> str:
    """`line: key: message` of the one problem of a text."""
    problems = refused(write(folder, text))
    assert len(problems) == 1
    assert problems[0]["file"] == str(folder / "amba.toml")
    return f"{problems[0]['line']}: {problems[0]['key']}: {problems[0]['message']}"


# --- what is kept ---


def test_no_file_means_defaults(tmp_path: Path) -> None:
    """A folder without configuration is complete (interface.md section 4)."""
    config = load_config(tmp_path)
    assert config == ProjectConfig(tmp_path)
    assert (config.storage, config.compatibility_date) == (True, "2026-01-01")
    assert config.project_slug is None


@pytest.mark.parametrize("place", ["amba.toml", "pyproject.toml"])
def test_everything_is_kept(tmp_path: Path, place: str) -> None:
    """Every key of interface.md section 4 is parsed, in either file."""
    text = FULL
    if place == "pyproject.toml":
        text = re.sub(r"^\[(?=[a-z])", "[tool.amba.", FULL, flags=re.MULTILINE)
        text = "[project]\nname='x'\n[tool.amba]" + text
    config = load_config(write(tmp_path, text, place))
    assert config.file == tmp_path / place
    assert (config.project_slug, config.storage) == ("shop", False)
    assert config.compatibility_date == "2026-02-03"
    assert config.limits == {"memory_mib": 128, "cpu_ms": 50}
    assert config.egress_allow == (
        EgressTarget("localhost", 5432),
        EgressTarget("api.example.com", 443),
        EgressTarget("::1", 8080),
        EgressTarget("10.0.0.1", 6379),
    )
    assert config.queues == (
        QueueBinding("orders", "hello"),
        QueueBinding(
            "mail",
            "other",
            paused=True,
            batch_size=10,
            batch_wait_ms=60_000,
            consumers=1,
            retries=0,
            backoff_ms=3_600_000,
        ),
        QueueBinding("Fan.Mail-2_x", "other"),
    )
    assert config.ai_fixtures == "_replies"
    hello, other = config.functions["hello"], config.functions["other"]
    assert hello.rate_limit == RateLimit("5m", 300, 100, RateLimitKey.IP)
    assert hello.schedules == (
        Schedule("*/5 * * * *"),
        Schedule("0 8 * * MON-FRI", "Europe/Berlin", Missed.RUN_ONCE),
    )
    assert (hello.engine, hello.entry) == (EngineChoice.WORKERD, None)
    assert hello.limits == {"cpu_ms": 0, "request_body_mib": 2048}
    assert hello.egress is not None
    assert hello.egress.wire() == {
        "only": ["api.stripe.com", "*.example.com:8443"],
        "secrets": {"STRIPE_KEY": ["api.stripe.com"]},
    }
    assert other.egress is None
    assert (other.entry, other.engine) == ("src/other.ts", EngineChoice.AUTO)
    assert other.place.startswith(f"{tmp_path / place}:")


def test_effective_limits(tmp_path: Path) -> None:
    """The function's own limit wins over the project's, that over the default (2.3)."""
    config = load_config(write(tmp_path, FULL))
    dev = FunctionLimits.dev()
    hello = config.limits_for("hello", dev)
    assert (hello.cpu_ms, hello.memory_mib, hello.request_body_mib) == (0, 128, 2048)
    assert hello.first_byte_ms == dev.first_byte_ms
    assert config.limits_for("unknown", dev).cpu_ms == 50
    assert config.limits_for("other", FunctionLimits.hosted()).total_ms == 300_000


def test_toml_date_is_a_day(tmp_path: Path) -> None:
    """A bare TOML date is taken like the string."""
    config = load_config(write(tmp_path, "compatibility_date = 2026-03-04"))
    assert config.compatibility_date == "2026-03-04"


def test_other_pyprojects_are_left_alone(tmp_path: Path) -> None:
    """A pyproject without [tool.amba] is none of our business, even when it is no TOML."""
    write(tmp_path, "[tool.ambassador]\nx = 1", "pyproject.toml")
    assert load_config(tmp_path).file is None
    write(tmp_path, "tool = 'amba'", "pyproject.toml")
    assert load_config(tmp_path).file is None
    write(tmp_path, "not toml", "pyproject.toml")
    assert load_config(tmp_path).file is None


def test_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    """A file saved with a BOM reads like one without."""
    assert load_config(write(tmp_path, '\ufeffproject = "shop"')).project_slug == "shop"


def test_both_files_are_a_problem(tmp_path: Path) -> None:
    """Two configurations: which one wins is not left to be guessed (peers.md pain 17)."""
    write(tmp_path, 'project = "a1"')
    write(tmp_path, "[tool.amba]\nproject = 'b1'", "pyproject.toml")
    (problem,) = refused(tmp_path)
    assert (problem["line"], problem["key"]) == (1, "tool.amba")
    assert "amba.toml is there as well" in problem["message"]


# --- what is refused ---

QUEUE_MOST = {
    "batch_size": limits.QUEUE_BATCH.value,
    "batch_wait_ms": limits.QUEUE_BATCH_WAIT_MS.value,
    "consumers": limits.QUEUE_CONSUMERS.value,
    "retries": limits.QUEUE_RETRIES.value,
    "backoff_ms": limits.QUEUE_BACKOFF_MOST_MS.value,
}


def test_all_problems_at_once(tmp_path: Path) -> None:
    """One error lists every problem, in the order of the file, each with line and key."""
    text = """project = "X"
storge = true

[limits]
cpu_ms = "50"
memory = 1

[functions.Hello]
[functions.hello]
entri = "a.ts"
[functions.hello.limits]
trace_depth = 0
"""
    problems = refused(write(tmp_path, text))
    assert [(p["line"], p["key"]) for p in problems] == [
        (1, "project"),
        (2, "storge"),
        (5, "limits.cpu_ms"),
        (6, "limits.memory"),
        (8, "functions.Hello"),
        (10, "functions.hello.entri"),
        (12, "functions.hello.limits.trace_depth"),
    ]
    assert 'did you mean "storage"' in problems[1]["message"]
    assert problems[2]["message"] == ('expected a whole number, 1 to 300000 ms; 0 = off; got "50"')
    assert 'did you mean "memory_mib"' in problems[3]["message"]
    assert "lower-case letter" in problems[4]["message"]
    assert 'did you mean "entry"' in problems[5]["message"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "x"', "project ="),
        ("[vars]\nA = 1", ".dev.vars"),
        ("[secrets]\nA = 1", ".dev.vars"),
        ("[env]\nA = 1", ".dev.vars"),
        ('main = "a.ts"', "[functions.NAME] entry"),
        ("compatibility_flags = []", "takes no flags"),
        ("zzzzzzzz = 1", 'known are "project"'),
    ],
)
def test_keys_of_other_tools_get_directions(tmp_path: Path, text: str, says: str) -> None:
    """A key that belongs elsewhere is told where; its value is not repeated."""
    assert says in one(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "project = 5",
        'project = "a"',
        'project = "-a"',
        'project = "A1"',
        f'project = "{"a" * 64}"',
        "storage = 1",
        'storage = "false"',
        'compatibility_date = "2026-02-30"',
        'compatibility_date = "20260101"',
        'compatibility_date = "٢٠٢٦-01-01"',
        "compatibility_date = 2026-01-01T00:00:00",
        "compatibility_date = 20260101",
        "limits = 5",
        "functions = []",
        "[functions]\nhello = 1",
        '[functions]\n"" = {}',
        f"[functions.{'a' * 59}]",
        '[functions."a.b"]',
        "[functions.1a]",
        "queues = 1",
        "[queues]\n'-a' = 'x'",
        "[queues]\n'fan-out:x' = 'x'",
        f"[queues]\n{'a' * 65} = 'x'",
        *[
            f"[queues.a]\nfunction = 'x'\n{key} = {wrong}"
            for key, most in QUEUE_MOST.items()
            for wrong in (-1, most + 1, 10**30, "true", "1.0", "'1'", "[]")
        ],
        "[queues.a]\nfunction = 'x'\nbatch_size = 0",
        "[queues.a]\nfunction = 'x'\nconsumers = 0",
        "[queues.a]\nfunction = 'x'\nbatch = 1",
        "ai = 'x'",
        "[ai]\nreplies = 'x'",
        *[f"[ai]\nfixtures = {wrong}" for wrong in ("1", "''", "'/x'", "'../x'", '"a\\u0000"')],
        "[queues]\na = 'X'",
        "[queues]\na = 1",
        "[queues.a]\nstatus = 'active'",
        "[queues.a]\nfunction = 'x'\nstatus = 'off'",
        "[queues.a]\nfunction = 'x'\nstatus = []",
        "egress = true",
        "[egress]\nallow = 'localhost:1'",
        "[egress]\ndeny = []",
        *[
            f"[egress]\nallow = [{json.dumps(target)}]"
            for target in (
                *("", "localhost", "localhost:", "localhost:0", "localhost:65536", ":80", "*:443"),
                *("http://localhost:80", "localhost:80/x", "a b:80", "::1:80", "[::1]", "[1.2]:80"),
                *("[1.2.3.4]:80", "1.2.3.4.5:80", "300.1.1.1:80", "1.2:80", "a..b:80", "-a:80"),
                *("é:80", "localhost:٨", "localhost:80\n", "u@h:80", "h" * 64 + ":80", 80),
                ".".join(["a" * 60] * 5) + ":80",
            )
        ],
    ],
)
def test_wrong_values_of_the_project(tmp_path: Path, text: str) -> None:
    """Wrong types, names and addresses are one problem each, with a line."""
    assert re.match(r"[123]: ", one(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "entry = 1",
        'entry = ""',
        'entry = "a.rb"',
        'entry = "/a.ts"',
        'entry = "../a.ts"',
        'entry = "a\\u0000.ts"',
        'engine = "deno"',
        "engine = 1",
        "rate_limit = 5",
        'rate_limit = { window = "60s", max = 1, key = "ip", extra = 1 }',
        'rate_limit = { max = 1, key = "ip" }',
        'rate_limit = { window = "60s", key = "ip" }',
        'rate_limit = { window = "60s", max = 1 }',
        *[
            f'rate_limit = {{ window = {window}, max = 1, key = "ip" }}'
            for window in (
                *('"0s"', '"61m"', '"2h"', '"3601s"', '"1d"', '"s"', '""', '"-1s"', '"1 s"', "60"),
                *(f'"{"9" * 5000}s"', '"٣s"', '"1s\\n"'),
            )
        ],
        'rate_limit = { window = "1s", max = 0, key = "ip" }',
        'rate_limit = { window = "1s", max = 100001, key = "ip" }',
        'rate_limit = { window = "1s", max = true, key = "ip" }',
        'rate_limit = { window = "1s", max = 1.0, key = "ip" }',
        'rate_limit = { window = "1s", max = 1, key = "project" }',
        'schedules = "* * * * *"',
        'schedules = ["* * * *"]',
        'schedules = ["* * * * * *"]',
        'schedules = ["* * * * ;"]',
        "schedules = [5]",
        "schedules = [{ timezone = 'UTC' }]",
        "schedules = [{ cron = '* * * * *', timezone = '../etc/passwd' }]",
        "schedules = [{ cron = '* * * * *', zone = 'UTC' }]",
        "schedules = [{ cron = '* * * * *', timezone = 'Mars/Olympus' }]",
        "schedules = [{ cron = '* * * * *', timezone = '' }]",
        "schedules = [{ cron = '* * * * *', timezone = 1 }]",
        "schedules = [{ cron = '* * * * *', missed = 'twice' }]",
        "schedules = [{ cron = '* * * * *', missed = true }]",
        "schedules = ['0 0 31 2 *']",
        "schedules = ['60 * * * *']",
        "schedules = ['* * * * *', '*  * * * *']",
        f"schedules = ['{'1' * 5000} * * * *']",
        "schedules = [{ cron = 5 }]",
        "schedules = ['5/15 * * * *']",
        "schedules = ['@daily']",
    ],
)
def test_wrong_values_of_a_function(tmp_path: Path, text: str) -> None:
    """Every wrong value of a function is one problem on its own line (D.6, D.8)."""
    assert one(tmp_path, "[functions.hello]\n" + text).startswith("2: functions.hello.")


def test_schedules_are_judged_as_the_server_does(tmp_path: Path) -> None:
    """The reason is the triggers' own, at the key it is about (contract D.6, H-13)."""
    told = one(tmp_path, "[functions.a]\nschedules = ['0 0 31 2 *']")
    assert told.startswith("2: functions.a.schedules[0]: it never fires")
    zone = "schedules = [{ cron = '* * * * *', timezone = 'Mars/Olympus' }]"
    told = one(tmp_path, f"[functions.a]\n{zone}")
    assert told.startswith("2: functions.a.schedules[0].timezone: ")


def test_a_function_has_so_many_schedules(tmp_path: Path) -> None:
    """As many as a server takes, each once."""
    most = limits.SCHEDULES_OF_FUNCTION.value
    crons = [f"{n % 60} {n // 60} * * *" for n in range(most + 1)]
    config = load_config(write(tmp_path, f"[functions.a]\nschedules = {json.dumps(crons[:-1])}"))
    assert len(config.functions["a"].schedules or ()) == most
    assert f"may have {most}" in one(tmp_path, f"[functions.a]\nschedules = {json.dumps(crons)}")


def test_schedules_are_read_as_the_platform_reads_them(tmp_path: Path) -> None:
    """The words of the API, with the line; absent, empty and given are three things (D.6)."""
    said = one(tmp_path, "[functions.hello]\nschedules = ['* * * * *', '0 0 30 feb *']")
    assert said.startswith("2: functions.hello.schedules[1]: it never fires: no month FEB has")
    text = """
[functions.a]
[functions.b]
schedules = []
[functions.c]
schedules = [{ cron = "0  9 * * *", timezone = "Asia/Tokyo", missed = "run_once" }]
"""
    functions = load_config(write(tmp_path, text)).functions
    assert functions["a"].schedules is None
    assert functions["b"].schedules == ()
    assert functions["c"].schedules == (Schedule("0 9 * * *", "Asia/Tokyo", Missed.RUN_ONCE),)


@pytest.mark.parametrize("window", ["1s", "3600s", "60m", "1h", "007s"])
def test_rate_limit_windows_at_the_edge(tmp_path: Path, window: str) -> None:
    """1 second and 1 hour are still good, in each unit (D.8)."""
    line = f'rate_limit = {{ window = "{window}", max = 100000, key = "user_id" }}'
    config = load_config(write(tmp_path, f"[functions.a]\n{line}"))
    rate_limit = config.functions["a"].rate_limit
    assert rate_limit is not None
    assert rate_limit.window_s == {"1s": 1, "007s": 7}.get(window, 3600)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_each_limit_at_its_edges(tmp_path: Path, setting: limits.Setting) -> None:
    """Just inside is kept, just outside and absurd are refused, 0 only where it means off."""
    for inside in (setting.minimum, setting.maximum, 0 if setting.off else setting.minimum):
        config = load_config(write(tmp_path, f"[limits]\n{setting.name} = {inside}"))
        assert config.limits == {setting.name: inside}
    below = -1 if setting.off else setting.minimum - 1
    for outside in (below, setting.maximum + 1, 10**30, "true", "false", "1.5", "'1'", "[]", "{}"):
        told = one(tmp_path, f"[limits]\n{setting.name} = {outside}")
        assert f"2: limits.{setting.name}: expected a whole number" in told


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a = 1\nb = = 2", 2, "is not valid TOML: Invalid value (column 5)"),
        ("a = 1\n\nb = [1,", 3, "is not valid TOML"),
        ("project = 'a1'\nproject = 'b1'", 2, "is not valid TOML: Cannot overwrite a value"),
        ("a = " + "9" * 5000, None, "a number is too long"),
        ("a = " + "[" * 5000, None, "nested too deeply"),
    ],
)
def test_broken_toml_has_its_line(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    """Text that is no TOML is told by line and column."""
    (problem,) = refused(write(tmp_path, text))
    assert problem["line"] == line
    assert says in problem["message"]


@pytest.mark.parametrize(
    ("raw", "line", "says"),
    [
        (b"a = 1\nb = '\xff'", 2, "not UTF-8"),
        (b"a = 1\nb = '\0'", 2, "NUL"),
        (b"#" * (limits.CONFIG_FILE_BYTES.value + 1), None, "more than 1048576 bytes"),
    ],
)
def test_file_that_is_no_text(tmp_path: Path, raw: bytes, line: int | None, says: str) -> None:
    """Bytes that are no UTF-8 text, or too many, are told without showing them."""
    (tmp_path / "amba.toml").write_bytes(raw)
    (problem,) = refused(tmp_path)
    assert problem["line"] == line
    assert says in problem["message"]


def test_things_that_are_no_file(tmp_path: Path) -> None:
    """A FIFO, a folder or a dead link in the file's place is told, and nothing hangs."""
    place = tmp_path / "amba.toml"
    os.mkfifo(place)
    assert "is not a file" in refused(tmp_path)[0]["message"]
    place.unlink()
    place.mkdir()
    assert "is not a file" in refused(tmp_path)[0]["message"]
    place.rmdir()
    place.symlink_to("nowhere")
    assert "leads nowhere" in refused(tmp_path)[0]["message"]
    place.unlink()
    place.symlink_to("amba.toml")
    assert "cannot be read" in refused(tmp_path)[0]["message"]


def test_a_flood_of_problems_is_cut(tmp_path: Path) -> None:
    """A message lists 50 problems and counts the rest."""
    write(tmp_path, "\n".join(f"zz{n} = 1" for n in range(80)))
    with pytest.raises(UserError) as caught:
        load_config(tmp_path)
    assert len(caught.value.details["problems"]) == limits.PROBLEMS_SHOWN.value
    assert caught.value.details["count"] == 80
    assert caught.value.message.endswith("and 30 more")


def test_odd_text_is_fit_for_a_terminal(tmp_path: Path) -> None:
    """Control characters of a file never reach the terminal, long values are cut."""
    write(tmp_path, f'project = "\\u001b[31m{"x" * 500}"\n[functions."\\u001b"]')
    with pytest.raises(UserError) as caught:
        load_config(tmp_path)
    assert "\x1b" not in caught.value.message
    assert "x" * 100 not in caught.value.message


# --- the environment ---


def test_environment_is_read_once_from_a_mapping() -> None:
    """Every variable has its field; secrets are masked (interface.md section 2)."""
    environment = Environment.of(
        {
            "AMBA_RUN_WORKERD": "/w",
            "AMBA_RUN_ESBUILD": "/e",
            "AMBA_API_URL": "http://127.0.0.1:1",
            "AMBA_PAT": "amb_dpat_x",
            "AMBA_PROJECT_ID": "p",
            "EDGE_HEADER_SIGNING_SECRET": "s3cret",
            "NO_COLOR": "1",
        }
    )
    assert environment == Environment(
        workerd=Path("/w"),
        esbuild=Path("/e"),
        api_url="http://127.0.0.1:1",
        pat=SecretText("amb_dpat_x"),
        project_id="p",
        signing_secret=SecretText("s3cret"),
        no_color=True,
    )
    assert "s3cret" not in repr(environment)
    assert "amb_dpat" not in repr(environment)


def test_empty_variables_are_unset() -> None:
    """An empty variable counts as absent, NO_COLOR too (its own convention)."""
    assert Environment.of(dict.fromkeys(["AMBA_PAT", "NO_COLOR", "AMBA_RUN_WORKERD"], "")) == (
        Environment()
    )


def test_environment_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own environment is read when asked, not at import."""
    monkeypatch.setenv("AMBA_PROJECT_ID", "from-the-process")
    assert Environment.of_process().project_id == "from-the-process"


@pytest.mark.slow
def test_import_brings_in_nothing_heavy() -> None:
    """Start-up pays for no parser that it may not need (import time is a promise of dev)."""
    # What is there before us is not ours: coverage, when it measures this child, has tomllib.
    code = (
        "import sys\n"
        "for name in (heavy := {'dotenv', 'tomllib', 'difflib', 'ipaddress', 'asyncio'}):\n"
        "    sys.modules.pop(name, None)\n"
        "import amba_run.config, amba_run.discovery, amba_run.secrets_files\n"
        "print(*heavy & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = set(done.stdout.split())
    assert brought <= {"ipaddress"}  # the standard library's own urllib may have it


# --- the schema ---

SCHEMA: dict[str, Any] = json.loads((files("amba_run") / "schema/amba.schema.json").read_text())


def holds(schema: dict[str, Any], value: object) -> bool:
    """A JSON Schema check of the few words the schema uses; an unknown word fails the test."""
    known = {
        *("$schema", "$ref", "title", "description", "type", "properties", "required", "enum"),
        *("additionalProperties", "propertyNames", "pattern", "items", "oneOf", "definitions"),
        *("minimum", "maximum"),
    }
    assert schema.keys() <= known
    if "$ref" in schema:
        return holds(SCHEMA["definitions"][schema["$ref"].removeprefix("#/definitions/")], value)
    kinds: dict[str, type] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
    }
    kind = schema.get("type")
    if kind and (
        not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool))
    ):
        return False
    checks = [value in schema["enum"]] if "enum" in schema else []
    if "oneOf" in schema:
        checks.append(sum(holds(option, value) for option in schema["oneOf"]) == 1)
    if isinstance(value, str):
        checks.append(re.search(schema.get("pattern", ""), value) is not None)
    if isinstance(value, int):
        checks.append(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, list):
        items: list[object] = value  # pyright: ignore[reportUnknownVariableType] JSON
        checks += [holds(schema["items"], item) for item in items]
    if isinstance(value, dict):
        members: dict[str, object] = value  # pyright: ignore[reportUnknownVariableType] JSON
        checks += [name in members for name in schema.get("required", ())]
        for name, member in members.items():
            if name in schema.get("properties", {}):
                checks.append(holds(schema["properties"][name], member))
            elif "propertyNames" in schema:
                checks.append(holds(schema["propertyNames"], name))
                checks.append(holds(schema["additionalProperties"], member))
            else:
                checks.append(schema.get("additionalProperties", True))
    return all(checks)


def test_schema_has_the_same_limits() -> None:
    """Names, bounds and defaults of the 13 settings are those of limits.py."""
    properties = SCHEMA["definitions"]["limits"]["properties"]
    assert list(properties) == [setting.name for setting in SETTINGS]
    for setting in SETTINGS:
        written = properties[setting.name]
        lowest = 0 if setting.off else setting.minimum
        assert (written["minimum"], written["maximum"]) == (lowest, setting.maximum)
        assert ("0 = off" in written["description"]) == setting.off
        assert f"Default {setting.dev or 'off'}" in written["description"]
        assert str(setting.hosted) in written["description"]


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"project": "a1"},
        {"project": "A"},
        {"project": 1},
        {"storage": False},
        {"storage": 0},
        {"compatibility_date": "2026-01-01"},
        {"compatibility_date": "soon"},
        {"unknown": 1},
        {"seed": {"folder": "seed"}},
        {"seed": {"folder": ""}},
        {"seed": {"folder": "/seed"}},
        {"seed": {"folder": 1}},
        {"seed": {}},
        {"seed": "seed"},
        {"functions": {}},
        {"functions": {"a": {}}},
        {"functions": {"A": {}}},
        {"functions": {"a" * 58: {}}},
        {"functions": {"a" * 59: {}}},
        {"functions": {"a": {"entry": "x.ts"}}},
        {"functions": {"a": {"entry": "x.rb"}}},
        {"functions": {"a": {"engine": "wasm"}}},
        {"functions": {"a": {"engine": "deno"}}},
        {"functions": {"a": {"schedules": ["* * * * *"]}}},
        {"functions": {"a": {"schedules": [{"cron": "* * * * *", "timezone": "UTC"}]}}},
        {"functions": {"a": {"schedules": [{"timezone": "UTC"}]}}},
        {"functions": {"a": {"schedules": [{"cron": "* * * * *", "missed": "run_once"}]}}},
        {"functions": {"a": {"schedules": [{"cron": "* * * * *", "missed": "twice"}]}}},
        *[
            {"queues": {"a": {"function": "b", name: number}}}
            for name, most in QUEUE_MOST.items()
            for number in (-1, 0, 1, most, most + 1, True, "1")
        ],
        {"queues": {"A.b-c_D": "x"}},
        {"queues": {"": "x"}},
        {"queues": {".a": "x"}},
        {"queues": {"a:b": "x"}},
        {"queues": {"a" * 64: "x"}},
        {"queues": {"a" * 65: "x"}},
        {"ai": {}},
        {"ai": {"fixtures": "replies"}},
        {"ai": {"fixtures": "/replies"}},
        {"ai": {"fixtures": ""}},
        {"ai": {"other": 1}},
        {"functions": {"a": {"schedules": "* * * * *"}}},
        {"functions": {"a": {"rate_limit": {"window": "1m", "max": 1, "key": "ip"}}}},
        {"functions": {"a": {"rate_limit": {"window": "1d", "max": 1, "key": "ip"}}}},
        {"functions": {"a": {"rate_limit": {"window": "1m", "max": 0, "key": "ip"}}}},
        {"functions": {"a": {"rate_limit": {"window": "1m", "max": 100001, "key": "ip"}}}},
        {"functions": {"a": {"rate_limit": {"window": "1m", "max": 1}}}},
        {"functions": {"a": {"limits": {"cpu_ms": 0}}}},
        {"functions": {"a": {"limits": {"log_kib": 0}}}},
        {"functions": {"a": {"limit": {}}}},
        {"queues": {"a": "b"}},
        {"queues": {"a": {"function": "b", "status": "paused"}}},
        {"queues": {"a": {"function": "b", "status": "off"}}},
        {"queues": {"a": {"status": "active"}}},
        {"queues": {"A": "b"}},
        {"queues": {"a": "B"}},
        {"egress": {"allow": ["localhost:1"]}},
        {"egress": {"allow": ["localhost"]}},
        {"egress": {"deny": []}},
        {"functions": {"a": {"egress": {}}}},
        {"functions": {"a": {"egress": []}}},
        {"functions": {"a": {"egress": {"allow": []}}}},
        {"functions": {"a": {"egress": {"only": []}}}},
        {"functions": {"a": {"egress": {"only": ["a.example", "*.b.example:1", "[::1]:2"]}}}},
        {"functions": {"a": {"egress": {"only": "a.example"}}}},
        {"functions": {"a": {"egress": {"only": [1]}}}},
        {"functions": {"a": {"egress": {"only": ["https://a.example"]}}}},
        {"functions": {"a": {"egress": {"only": ["a b"]}}}},
        {"functions": {"a": {"egress": {"secrets": {"KEY": ["a.example"]}}}}},
        {"functions": {"a": {"egress": {"secrets": {"KEY": "a.example"}}}}},
        {"functions": {"a": {"egress": {"secrets": {"key": ["a.example"]}}}}},
        {"functions": {"a": {"egress": {"secrets": {"AMBA_X": ["a.example"]}}}}},
        {"functions": {"a": {"egress": {"secrets": []}}}},
        {"egress": []},
        {"limits": {"memory_mib": 64}},
        {"limits": {"memory_mib": True}},
        {"limits": {"memory": 64}},
    ],
    ids=str,
)
def test_schema_and_reader_agree(tmp_path: Path, value: dict[str, Any]) -> None:
    """An editor with the schema says yes and no where the reader does."""
    write(tmp_path, "".join(f"{key} = {toml(member)}\n" for key, member in value.items()))
    try:
        load_config(tmp_path)
        read = True
    except UserError:
        read = False
    assert holds(SCHEMA, value) == read


def toml(value: object) -> str:
    """A JSON value as inline TOML."""
    if isinstance(value, dict):
        members: dict[str, object] = value  # pyright: ignore[reportUnknownVariableType] JSON
        inner = ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in members.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        items: list[object] = value  # pyright: ignore[reportUnknownVariableType] JSON
        return f"[{', '.join(toml(item) for item in items)}]"
    return json.dumps(value)
