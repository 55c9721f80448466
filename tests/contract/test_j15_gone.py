"""Contract J, check 15: unknown and deleted functions are 404; the history stays."""

from __future__ import annotations

import pytest
from tests.contract.hosted import Shop, ask, guest

pytestmark = pytest.mark.slow

NOT_FOUND = (404, "FUNCTION_NOT_FOUND")


def test_an_unknown_function_is_404(shop: Shop) -> None:
    """With resource and name (A.7, J 15)."""
    told = shop.call("nope")
    assert told.said == NOT_FOUND
    assert told.body["error"]["details"] == {"resource": "function", "id": "nope"}


def test_a_deleted_function_is_404_at_once_and_keeps_its_history(shop: Shop) -> None:
    """Rows become `disabled`; deleting again is a success (D.4, J 15)."""
    for suffix in (b"", b"//"):
        shop.upload("teller", guest("teller") + suffix)
    assert shop.call("teller").status == 200
    assert shop.api("DELETE", "functions/teller").said == (400, "CONFIRM_REQUIRED")
    told = shop.api("DELETE", "functions/teller?confirm=teller")
    assert told.data == {
        "name": "teller",
        "deleted": True,
        "cascade": {
            "cf_dispatch_script_deleted": True,
            "function_deployments_marked_disabled": 2,
            "schedules_deleted": 0,
        },
    }
    assert shop.call("teller").said == NOT_FOUND
    rows = shop.api("GET", "functions/deployments").data
    assert [(row["version"], row["status"]) for row in rows] == [(2, "disabled"), (1, "disabled")]
    assert shop.api("GET", "functions/deployments?active=1").data == []
    assert shop.api("DELETE", "functions/teller?confirm=teller").status == 200
    never = shop.api("DELETE", "functions/never?confirm=never")
    assert never.said == NOT_FOUND


def test_a_disabled_deployment_is_404_and_a_new_one_serves(shop: Shop) -> None:
    """Disabling is for one deployment; the next deploy goes on counting (D.4)."""
    first = shop.upload("teller", guest("teller")).data["id"]
    told = shop.api("POST", f"functions/deployments/{first}/disable")
    assert told.data == {"id": first, "status": "disabled"}
    assert shop.call("teller").said == NOT_FOUND
    assert shop.upload("teller", guest("teller")).data["version"] == 2
    assert shop.call("teller").status == 200


def test_a_deleted_project_is_gone(shop: Shop) -> None:
    """Its host answers 404 PROJECT_NOT_FOUND from then on (A.7, E.1)."""
    shop.upload("teller", guest("teller"))
    assert shop.api("DELETE", f"/v1/admin/projects/{shop.id}").data["deleted"] is True
    assert shop.call("teller").said == (404, "PROJECT_NOT_FOUND")
    host = {"Host": f"{shop.slug}.fn.localhost:{shop.node.port}"}
    told = ask(shop.node, "GET", "/teller", b"", host)
    assert told.said == (404, "PROJECT_NOT_FOUND")
