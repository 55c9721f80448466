"""Contract J, check 7: a rate limit refuses before dispatch, by the bucket it names."""

from __future__ import annotations

import pytest
from tests.contract.hosted import Shop, guest

pytestmark = pytest.mark.slow


def test_429_without_invoking(shop: Shop) -> None:
    """The function does not run for a refused request (D.8, J 7)."""
    limit = {"window": "1h", "max": 3, "key": "ip"}
    told = shop.upload("teller", guest("teller"), rate_limit=limit)
    assert told.data["rate_limit"] == limit
    counts = [shop.call("teller").body["requests"] for _ in range(3)]
    assert counts == [1, 2, 3]
    for _ in range(3):
        refused = shop.call("teller")
        assert refused.said == (429, "rate_limited")
        details = refused.body["error"]["details"]
        assert (details["window"], details["max"]) == ("1h", 3)
        assert int(refused.headers["retry-after"]) == details["retry_after_seconds"] > 3500
    # the next version counts on from where it is, and has run nothing yet
    again = shop.upload("teller", guest("teller"), rate_limit=None)
    assert again.data["rate_limit"] is None
    assert shop.call("teller").body["requests"] == 1


def test_anonymous_callers_share_one_bucket(shop: Shop) -> None:
    """`user_id` of nobody is `__anon__`, whatever credential they fail to have (D.8, J 7)."""
    limit = {"window": "60s", "max": 2, "key": "user_id"}
    shop.upload("teller", guest("teller"), rate_limit=limit)
    assert shop.call("teller").status == 200
    assert shop.call("teller", Authorization="Bearer nonsense").status == 200
    for headers in ({}, {"Authorization": "Bearer other"}, {"X-Amba-User-Id": "u_1"}):
        refused = shop.call("teller", **headers)
        assert refused.said == (429, "rate_limited")


@pytest.mark.parametrize(
    "limit",
    [
        *({"window": "60s"}, {"window": "60s", "max": 1}, {"max": 1, "key": "ip"}, {}),
        {"window": "2h", "max": 1, "key": "ip"},
    ],
)
def test_all_three_or_none(shop: Shop, limit: object) -> None:
    """A partial limit is 400 INVALID_RATE_LIMIT, and nothing is deployed (D.3, D.8, J 7)."""
    told = shop.upload("teller", guest("teller"), rate_limit=limit)
    assert told.said == (400, "INVALID_RATE_LIMIT")
    assert shop.call("teller").status == 404
