"""Contract J, check 12: a function's logs, on a hosted node (D.5)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.contract.hosted import Shop

pytestmark = pytest.mark.slow

SPEAKS = """
export default { async fetch(request, env, ctx) {
  const { pathname } = new URL(request.url);
  console.log("hello", pathname, { deep: [1, null] });
  if (pathname === "/throw") throw new TypeError("thrown on purpose");
  if (pathname === "/late") ctx.waitUntil(scheduler.wait(200).then(() => console.warn("later")));
  return new Response("ok");
} };
"""


NAME = "speaks"


def _deploy(shop: Shop, name: str = NAME) -> None:
    assert shop.upload(name, SPEAKS.encode()).status == 201


def _events(shop: Shop, query: str = "", name: str = NAME) -> dict[str, Any]:
    data: dict[str, Any] = shop.api("GET", f"functions/{name}/logs{query}").data
    return data


def test_contract_J_12_the_shape_of_an_event(shop: Shop) -> None:
    """Names with their case, newest first; who asks right after an answer finds its event."""
    _deploy(shop)
    assert shop.call(f"{NAME}/a").status == 200
    assert shop.call(f"{NAME}/throw").status == 500
    data = _events(shop)
    assert set(data) == {"events", "truncated", "since", "until"}
    assert data["truncated"] is False
    thrown, fine = data["events"]
    for event in (thrown, fine):
        assert {"Event", "ScriptName", "Outcome", "Logs", "Exceptions", "EventTimestampMs"} <= set(
            event
        )
        assert event["ScriptName"] == f"{NAME}-v1"
        assert isinstance(event["EventTimestampMs"], int)
        assert abs(event["EventTimestampMs"] / 1000 - time.time()) < 60
    assert (fine["Outcome"], fine["Exceptions"]) == ("ok", [])
    [line] = fine["Logs"]
    assert (line["Level"], line["Message"]) == ("log", ["hello", "/a", {"deep": [1, None]}])
    assert thrown["Outcome"] == "exception"
    [error] = thrown["Exceptions"]
    assert (error["Name"], error["Message"]) == ("TypeError", "thrown on purpose")
    assert isinstance(error["TimestampMs"], int)


def test_contract_J_12_limit_and_truncated(shop: Shop) -> None:
    """The newest are given, and it is said that there are more."""
    _deploy(shop)
    for n in range(5):
        shop.call(f"{NAME}/{n}")
    data = _events(shop, "?limit=2")
    assert data["truncated"] is True
    assert [event["Logs"][0]["Message"][1] for event in data["events"]] == ["/4", "/3"]
    assert _events(shop, "?limit=5")["truncated"] is False


def test_contract_J_12_a_tail_by_the_newest_time_plus_one(shop: Shop) -> None:
    """Polling with max + 1 ms as the next `since` sees every event once, late lines too."""
    _deploy(shop)
    seen: list[str] = []
    since_ms = int(time.time() * 1000) - 60_000

    def poll() -> None:
        nonlocal since_ms
        events = _events(shop, f"?limit=200&since={since_ms}")["events"]
        for event in reversed(events):
            seen.extend(str(line["Message"][1:2] or line["Message"]) for line in event["Logs"])
        since_ms = max([since_ms - 1, *(e["EventTimestampMs"] for e in events)]) + 1

    shop.call(f"{NAME}/late")
    for n in range(20):
        shop.call(f"{NAME}/{n}")
        if n % 3 == 0:
            poll()
    deadline = time.monotonic() + 5
    while "['later']" not in seen and time.monotonic() < deadline:
        poll()
    assert seen.count("['later']") == 1
    paths = [text for text in seen if text.startswith("['/")]
    assert sorted(paths) == sorted(["['/late']", *(f"['/{n}']" for n in range(20))])


def test_contract_J_12_logs_are_one_functions(shop: Shop) -> None:
    """Another one's are not in them."""
    _deploy(shop)
    _deploy(shop, "theirs")
    assert shop.call("theirs/secret").status == 200
    assert _events(shop)["events"] == []
