"""Contract J, check 1: a plain module sees the seven headers in both name pairs."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from typing import Any

import pytest
from tests.run.serving import Dev

pytestmark = pytest.mark.slow

SEVEN = (
    *("x-amba-project-id", "x-amba-user-id", "x-amba-developer-id"),
    *("x-amba-request-id", "x-amba-function-name"),
)
PAIRS = (
    ("x-amba-timestamp", "x-amba-signature"),
    ("x-amba-edge-timestamp", "x-amba-edge-signature"),
)
NINE = {*SEVEN, *PAIRS[0], *PAIRS[1]}
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


def seen(dev: Dev, **headers: str) -> dict[str, str]:
    """Every header as the function sees it."""
    pairs: list[list[str]] = json.loads(dev.ask("echo-headers", **headers))["headers"]
    fields = {pair[0]: pair[1] for pair in pairs}
    assert len(fields) == len(pairs)
    return fields


def holds(fields: dict[str, str], pair: tuple[str, str], secret: str) -> bool:
    """The golden rule, written here once more: seven lines, HMAC-SHA256, lower-case hex."""
    project, user, developer, request, function = (fields[name] for name in SEVEN)
    lines = ("v1", project, user, developer, request, function, fields[pair[0]])
    mac = hmac.new(secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    return mac == fields[pair[1]]


def check(fields: dict[str, str], secret: str, **expected: str) -> None:
    assert {name for name in fields if name.startswith(("x-amba", "x_amba"))} == NINE
    for name, value in expected.items():
        assert fields[f"x-amba-{name.replace('_', '-')}"] == value
    assert UUID7.match(fields["x-amba-request-id"])
    for pair in PAIRS:
        assert abs(time.time() - int(fields[pair[0]])) <= 5
        assert re.fullmatch(r"[0-9a-f]{64}", fields[pair[1]])
        assert holds(fields, pair, secret)


def test_contract_J_1_all_seven_headers_in_both_pairs(
    contract_dev: Dev, signing_secret: str
) -> None:
    """Empty string, not absence, for no user and no developer; both pairs verify (A.3, A.4)."""
    check(
        seen(contract_dev),
        signing_secret,
        project_id=contract_dev.ready["project"]["id"],
        user_id="",
        developer_id="",
        function_name="echo-headers",
    )


def test_contract_J_1_a_forged_user_never_survives(contract_dev: Dev, signing_secret: str) -> None:
    """Whatever the caller sends under these names, the function sees ours (A.3)."""
    forged = {name.replace("-", "_"): "evil" for name in NINE}
    fields = seen(contract_dev, **forged, x_amba_role="admin")
    assert "evil" not in json.dumps(fields)
    check(fields, signing_secret, user_id="", developer_id="")


def test_contract_J_1_a_developer_is_stamped(contract_dev: Dev, signing_secret: str) -> None:
    """A PAT names its developer, and Authorization reaches the function as sent (A.6, H-3)."""
    bearer = "Bearer " + contract_dev.ready["keys"]["pat"]
    fields = seen(contract_dev, Authorization=bearer, X_Amba_User_Id="evil")
    check(fields, signing_secret, user_id="", developer_id="d_local")
    assert fields["authorization"] == bearer


def test_contract_J_1_an_invalid_credential_is_nobody(
    contract_dev: Dev, signing_secret: str
) -> None:
    """Never a 401 from the router: nobody, and a warning in the log (H-4)."""
    fields = seen(contract_dev, Authorization="Bearer amb_dpat_" + "x" * 32)
    check(fields, signing_secret, user_id="", developer_id="")
    assert "unknown personal access token" in contract_dev.said("credential was ignored")


def test_contract_J_1_the_function_itself_can_verify(contract_dev: Dev) -> None:
    """`crypto.subtle` inside the function agrees, for both pairs (A.4)."""
    verdict: dict[str, Any] = json.loads(contract_dev.ask("verify-signature"))
    assert verdict["verified"] is True
    assert verdict["function_name"] == "verify-signature"
