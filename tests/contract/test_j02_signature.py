"""Contract J, check 2: the golden vector verifies; 60 s of skew pass, 61 do not; nor any change."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from typing import Any

import pytest
from tests.run.serving import Dev

from amba_router.verify import Rule, explain

NAMES = {
    "x-amba-project-id": "project_id",
    "x-amba-user-id": "user_id",
    "x-amba-developer-id": "developer_id",
    "x-amba-request-id": "request_id",
    "x-amba-function-name": "function_name",
}


def headers_of(vector: dict[str, Any]) -> dict[str, str]:
    """The request headers that a vector stands for, both pairs."""
    fields = {name: str(vector[key]) for name, key in NAMES.items()}
    for infix in ("", "edge-"):
        fields[f"x-amba-{infix}timestamp"] = str(vector["timestamp"])
        fields[f"x-amba-{infix}signature"] = vector["hmac_sha256_hex"]
    return fields


def signable(vectors: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that may stand in a request: ids are visible ASCII."""
    found = [v for v in vectors["vectors"] if v["user_id"].isascii()]
    assert len(found) == 4
    return found


def test_contract_J_2_the_vector_is_the_published_one(vectors: dict[str, Any]) -> None:
    """The copy in this checkout holds the vector that contract J prints, and its rule."""
    first = vectors["vectors"][0]
    assert first["secret"] == "whsec_test_0123456789abcdef"
    assert first["hmac_sha256_hex"] == (
        "260ed1022015e7d721c1f86c7a06c8b1ef38a14ef9bf9c57da23bf52499723ac"
    )
    assert vectors["replay_window_s"] == 60
    for vector in vectors["vectors"]:
        fields = [str(vector[key]) for key in (*NAMES.values(), "timestamp")]
        assert vector["canonical"] == "\n".join(["v1", *fields])
        mac = hmac.new(vector["secret"].encode(), vector["canonical"].encode(), hashlib.sha256)
        assert mac.hexdigest() == vector["hmac_sha256_hex"]


@pytest.mark.parametrize(
    ("skew_s", "good"),
    [(-61, False), (-60, True), (-59, True), (0, True), (59, True), (60, True), (61, False)],
)
def test_contract_J_2_the_replay_window(vectors: dict[str, Any], skew_s: int, good: bool) -> None:
    """60 seconds either way, inclusive (A.5)."""
    for vector in signable(vectors):
        fields = headers_of(vector)
        verdict = explain(fields.items(), vector["secret"].encode(), vector["timestamp"] + skew_s)
        assert verdict.ok is good
        assert verdict.rule is (None if good else Rule.SKEW)
        assert verdict.skew_s == skew_s


def test_contract_J_2_one_changed_header_fails(vectors: dict[str, Any]) -> None:
    """Each header, changed, added to, or taken away: the request no longer verifies (A.5)."""
    tried = 0
    for vector in signable(vectors):
        fields = headers_of(vector)
        secret, now = vector["secret"].encode(), float(vector["timestamp"])
        assert explain(fields.items(), secret, now).ok
        for name, value in fields.items():
            digit = "0" if value[-1:] != "0" else "1"
            for changed in (value[:-1] + digit, value + "0", ""):
                if changed == value:
                    continue
                assert not explain({**fields, name: changed}.items(), secret, now).ok, name
                tried += 1
            if "edge" not in name and name not in ("x-amba-timestamp", "x-amba-signature"):
                fewer = {n: v for n, v in fields.items() if n != name}
                assert explain(fewer.items(), secret, now).rule is Rule.MISSING_HEADER
        assert not explain(fields.items(), secret + b"x", now).ok
    assert tried > 90


@pytest.mark.slow
def test_contract_J_2_two_hundred_vectors_inside_a_function(
    contract_dev: Dev, vectors: dict[str, Any]
) -> None:
    """A verifier inside the worker agrees on 200 vectors, and refuses each one changed (B3)."""
    rng = random.Random(2)
    asked = [
        {"secret": v["secret"], "canonical": v["canonical"], "mac": v["hmac_sha256_hex"]}
        for v in vectors["vectors"]
    ]
    while len(asked) < 200:
        secret = "".join(rng.choices("abcdefghij0123456789_é🔑", k=rng.randrange(1, 80)))
        ids = ["".join(rng.choices("abc-XYZ_0189", k=rng.randrange(40))) for _ in range(5)]
        canonical = "\n".join(["v1", *ids, str(rng.randrange(2**41))])
        mac = hmac.new(secret.encode(), canonical.encode(), hashlib.sha256).hexdigest()
        asked.append({"secret": secret, "canonical": canonical, "mac": mac})
    changed = [{**v, "canonical": v["canonical"][:-1] + "x"} for v in asked]
    with contract_dev.connection() as connection:
        connection.request("POST", "/fn/local/check-vectors", json.dumps(asked + changed).encode())
        verdicts: list[bool] = json.loads(connection.getresponse().read())
    assert verdicts == [True] * 200 + [False] * 200
