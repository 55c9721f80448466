"""`amba-run verify`: the golden vector holds, and a broken rule is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.run.cli.conftest import Command
from tests.run.serving import Dev

from amba_router.signing import Stamp, mac_hex

SECRET = "whsec_test_secret"
AT = 1_767_225_600
STAMP = Stamp("p_1", "u_1", "", "r_1", "hello", AT)


def headers(**changed: str) -> dict[str, str]:
    """A request that holds at AT, with some headers changed."""
    mac = mac_hex(SECRET.encode(), STAMP)
    whole = {
        "X-Amba-Project-Id": "p_1",
        "X-Amba-User-Id": "u_1",
        "X-Amba-Developer-Id": "",
        "X-Amba-Request-Id": "r_1",
        "X-Amba-Function-Name": "hello",
        "X-Amba-Timestamp": str(AT),
        "X-Amba-Signature": mac,
        "X-Amba-Edge-Timestamp": str(AT),
        "X-Amba-Edge-Signature": mac,
    }
    return whole | {name.replace("_", "-"): value for name, value in changed.items()}


def as_json(fields: dict[str, str]) -> bytes:
    return json.dumps(fields).encode()


def as_http(fields: dict[str, str]) -> bytes:
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(["GET / HTTP/1.1", "Host: x", *lines, "", ""]).encode()


@pytest.mark.parametrize("form", [as_json, as_http])
def test_a_signature_that_holds(command: Command, form: object) -> None:
    """Exit 0, with the canonical string and the skew (contract A.4, A.5)."""
    assert callable(form)
    at = str(AT + 3)
    done = command("verify", "--secret", SECRET, "--at", at, stdin=form(headers()))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("the signature holds\n")
    assert 'canonical  v1\n           p_1\n           u_1\n           ""\n' in done.out
    assert "skew       3 s" in done.out
    assert SECRET not in done.out


@pytest.mark.parametrize(
    ("changed", "at", "rule"),
    [
        ({"X_Amba_User_Id": "u_2"}, AT, "SIGNATURE_MISMATCH"),
        ({}, AT + 61, "SKEW"),
        ({"X_Amba_Signature": "ABC"}, AT, "BAD_SIGNATURE_FORM"),
        ({"X_Amba_Edge_Timestamp": "1"}, AT, "PAIRS_DISAGREE"),
        ({"X_Amba_Request_Id": "\x1b[2J"}, AT, "BAD_ID"),
    ],
)
def test_a_broken_rule_is_named(
    command: Command, changed: dict[str, str], at: int, rule: str
) -> None:
    """Exit 1; in words and as JSON; what a caller sent cannot steer the terminal."""
    stdin = as_json(headers(**changed))
    done = command("verify", "--secret", SECRET, "--at", str(at), stdin=stdin)
    assert done.code == 1
    assert done.out.startswith(f"the signature fails: {rule}\n")
    assert "fix: " in done.out
    assert "\x1b" not in done.out
    done = command("verify", "--secret", SECRET, "--at", str(at), "--json", stdin=stdin)
    told = json.loads(done.out)
    assert (done.code, told["ok"], told["rule"], told["faults"][0]["rule"]) == (
        *(1, False, rule),
        rule,
    )
    assert set(told) == {
        *("ok", "rule", "faults", "canonical", "expected", "got", "skew_s", "secret_from"),
    }


def test_where_the_secret_comes_from(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--secret, else EDGE_HEADER_SIGNING_SECRET, else the running dev server (interface.md 2)."""
    done = command("verify", stdin=as_json(headers()))
    assert (done.code, done.out) == (1, "")
    assert "no signing secret" in done.err
    assert "--secret" in done.err
    monkeypatch.setenv("EDGE_HEADER_SIGNING_SECRET", SECRET)
    done = command("verify", "--at", str(AT), "--json", stdin=as_json(headers()))
    assert (done.code, json.loads(done.out)["secret_from"]) == (0, "EDGE_HEADER_SIGNING_SECRET")
    done = command("verify", "--state", str(tmp_path), stdin=as_json(headers()))
    assert done.code == 1
    assert "no state directory" in done.err


@pytest.mark.parametrize("stdin", [b"", b"{", b"not a header", b"\xff\xfe", b"[]", b"[1]"])
def test_what_cannot_be_read(command: Command, stdin: bytes) -> None:
    """Bad input is an error with what to give instead."""
    done = command("verify", "--secret", SECRET, stdin=stdin)
    assert (done.code, done.out) == (1, "")
    assert "[INVALID_STAMP]" in done.err


@pytest.mark.slow
def test_a_real_request_holds(command: Command, dev: Dev, served: Path) -> None:
    """What a function of the running dev server saw, checked with that server's own secret."""
    seen = dev.get("/fn/local/echo").body
    for cwd in (served, served.parent):
        done = command("verify", "--json", stdin=seen, cwd=cwd)
        told = json.loads(done.out)
        assert (done.code, told["ok"]) == (0, True)
        assert told["secret_from"] == f"the dev server at {dev.ready['origin']}"
    done = command("verify", "--state", dev.ready["state"], stdin=seen)
    assert done.code == 0
