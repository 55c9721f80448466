"""Contract J, check 5: what `AMBA_INTERNAL_TOKEN` opens, and what it does not."""

from __future__ import annotations

import pytest
from tests.contract.hosted import Shop, ask, guest, make_shop

pytestmark = pytest.mark.slow

INTERNAL = (401, "INVALID_INTERNAL_TOKEN")


def token_of(shop: Shop) -> str:
    """As a function has it."""
    token: str = shop.call("env-dump").body["values"]["AMBA_INTERNAL_TOKEN"]
    return token


@pytest.fixture
def env_dump(shop: Shop) -> Shop:
    """A project with a function that shows its env."""
    assert shop.upload("env-dump", guest("env-dump")).status == 201
    return shop


def test_it_is_an_admin_of_its_own_project(env_dump: Shop) -> None:
    """`/v1/admin/projects/{own}/*`: full admin (C.1, J 5)."""
    token = token_of(env_dump)
    assert env_dump.api("GET", "functions/deployments", token=token).status == 200
    secret = {"name": "FROM_FUNCTION", "value": "1"}
    assert env_dump.api("POST", "secrets", secret, token=token).status == 201
    shown = env_dump.api("GET", "internal-credentials", token=token).data
    assert shown["internal_token"] == token


def test_another_project_is_403(env_dump: Shop) -> None:
    """`WRONG_PROJECT`, whether that project exists or not (C.1, J 5)."""
    token = token_of(env_dump)
    other = make_shop(env_dump.node, "Another")
    for project in (other.id, "00000000-0000-4000-8000-000000000000"):
        told = env_dump.api("GET", "functions/deployments", token=token, project=project)
        assert told.said == (403, "WRONG_PROJECT")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/admin/projects"),
        ("POST", "/v1/admin/projects"),
        ("GET", "/v1/auth/developer/me"),
    ],
)
def test_global_admin_is_refused(env_dump: Shop, method: str, path: str) -> None:
    """401 INVALID_INTERNAL_TOKEN, and nothing was made (C.1, H2, J 5)."""
    told = env_dump.api(method, path, {"name": "No"}, token=token_of(env_dump))
    assert told.said == INTERNAL


def test_a_revoked_or_unknown_one_is_401(env_dump: Shop) -> None:
    """From the answer to the revocation on; functions have the new one by then (C.1, J 5)."""
    old = token_of(env_dump)
    rows = env_dump.api("GET", "internal-credentials").data["credentials"]
    id_ = next(row["id"] for row in rows if row["kind"] == "internal_token")
    rotated = env_dump.api("POST", "internal-credentials/rotate", {"which": "internal_token"})
    assert rotated.status == 201
    assert env_dump.api("GET", "secrets", token=old).status == 200
    assert env_dump.api("DELETE", f"internal-credentials/{id_}").status == 200
    assert env_dump.api("GET", "secrets", token=old).said == INTERNAL
    assert env_dump.api("GET", "secrets", token=rotated.data["internal_token"]).status == 200
    assert env_dump.api("GET", "secrets", token="amb_int_" + "A" * 43).said == INTERNAL


def test_a_server_key_is_the_same_but_for_its_codes(env_dump: Shop) -> None:
    """Project-scoped backend credential (E.0, H-9)."""
    key = env_dump.server_key
    assert env_dump.api("GET", "secrets", token=key).status == 200
    other = make_shop(env_dump.node, "Another")
    told = env_dump.api("GET", "secrets", token=key, project=other.id)
    assert told.said == (403, "WRONG_PROJECT")
    nobody = ask(env_dump.node, "GET", "/v1/admin/projects", b"", {})
    assert nobody.said == (401, "UNAUTHORIZED")
