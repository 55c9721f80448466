"""Contract J, check 6: secrets by scope, reserved names, set and unset, as functions see them."""

from __future__ import annotations

import time

import pytest
from tests.contract.hosted import Shop, guest

pytestmark = pytest.mark.slow


def env(shop: Shop, name: str = "env-dump") -> dict[str, str]:
    """The text bindings of a function."""
    values: dict[str, str] = shop.call(name).body["values"]
    return values


def set_(shop: Shop, name: str, value: str, function: str | None = None) -> int:
    body = {"name": name, "value": value}
    if function is not None:
        body["function"] = function
    return shop.api("POST", "secrets", body).status


def test_project_wide_reaches_later_deploys_and_function_scope_wins(shop: Shop) -> None:
    """Every function, also one deployed later; the own one over the wide one (C.2, H-12, J 6)."""
    set_(shop, "WIDE", "w")
    set_(shop, "BOTH", "wide")
    set_(shop, "BOTH", "own", "one")
    set_(shop, "OWN", "o", "one")
    for name in ("one", "two"):
        assert shop.upload(name, guest("env-dump")).status == 201
    one, two = env(shop, "one"), env(shop, "two")
    assert (one["WIDE"], one["BOTH"], one["OWN"]) == ("w", "own", "o")
    assert (two["WIDE"], two["BOTH"], two.get("OWN")) == ("w", "wide", None)


@pytest.mark.parametrize("name", ["AMBA_X", "EDGE_X", "STORAGE", "HYPERDRIVE", "EDGE_DB_PROXY"])
def test_reserved_names_are_refused(shop: Shop, name: str) -> None:
    """The platform's own (C.2, J 6)."""
    told = shop.api("POST", "secrets", {"name": name, "value": "v"})
    assert told.said == (400, "RESERVED_NAME")


def test_a_set_value_reaches_a_running_function_within_a_second(shop: Shop) -> None:
    """Without a deploy, a restart or a failed request (C.2)."""
    shop.upload("env-dump", guest("env-dump"))
    assert "NEW" not in env(shop)
    began = time.monotonic()
    assert set_(shop, "NEW", "1") == 201
    while env(shop).get("NEW") != "1":
        assert time.monotonic() - began < 1
    set_(shop, "NEW", "2")
    while env(shop).get("NEW") != "2":
        assert time.monotonic() - began < 2
    # a project-wide value does not displace the function's own
    set_(shop, "NEW", "own", "env-dump")
    set_(shop, "NEW", "3")
    assert env(shop)["NEW"] == "own"


def test_an_unset_value_stays_until_the_next_deploy(shop: Shop) -> None:
    """Gone from the list at once, from the running function with its next deploy (C.2, J 6)."""
    set_(shop, "KEPT", "v")
    shop.upload("env-dump", guest("env-dump"))
    assert shop.api("DELETE", "secrets/KEPT").data["deleted"] is True
    assert shop.api("GET", "secrets").data == []
    assert env(shop)["KEPT"] == "v"
    shop.upload("env-dump", guest("env-dump") + b"//")
    assert "KEPT" not in env(shop)


def test_values_are_never_read_back(shop: Shop) -> None:
    """Only name and sync status (C.2)."""
    set_(shop, "HIDDEN", "canary-5e1f")
    listed = shop.api("GET", "secrets").body
    assert [row["name"] for row in listed["data"]] == ["HIDDEN"]
    assert listed["data"][0]["sync_status"] == "synced"
    assert "canary-5e1f" not in str(listed)
