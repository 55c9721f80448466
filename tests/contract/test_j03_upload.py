"""Contract J, check 3: the real command line's upload deploys, and versions follow each other."""

from __future__ import annotations

import hashlib

import pytest
from tests.contract.hosted import Shop, ask, guest

pytestmark = pytest.mark.slow


def answering(text: str) -> bytes:
    return f"export default {{ fetch() {{ return Response.json({text!r}) }} }};\n".encode()


def test_the_upload_of_the_real_command_line_deploys(shop: Shop) -> None:
    """`data.version`, `data.cf_script_name` and `fn_url` are there to print (D.2, J 3)."""
    code = answering("one")
    told = shop.upload("hello", code)
    assert told.status == 201
    data = told.data
    assert (data["version"], data["cf_script_name"]) == (1, "hello-v1")
    assert data["cf_dispatch_namespace"] == "amba_tenant_functions"
    assert data["bundle_sha"] == hashlib.sha256(code).hexdigest()
    assert (data["name"], data["project_id"], data["status"]) == ("hello", shop.id, "active")
    assert data["created_at"].endswith("Z")
    assert told.body["fn_url"] == f"http://{shop.slug}.fn.localhost:{shop.node.port}/hello"
    assert "fn_url" not in data
    assert shop.call("hello").body == "one"


def test_the_printed_url_works_as_printed(shop: Shop) -> None:
    """Its host and path reach the function (A.1)."""
    told = shop.upload("hello", answering("here"))
    host, _, path = told.body["fn_url"].removeprefix("http://").partition("/")
    assert ask(shop.node, "GET", f"/{path}", b"", {"Host": host}).body == "here"


def test_a_second_deploy_is_version_2_and_supersedes_the_first(shop: Shop) -> None:
    """And serves when the answer is there (D.2, D.4, J 3)."""
    shop.upload("hello", answering("one"))
    assert shop.upload("hello", answering("two")).data["version"] == 2
    assert shop.call("hello").body == "two"
    listed = shop.api("GET", "functions/deployments").body
    assert [(row["version"], row["status"]) for row in listed["data"]] == [
        (2, "active"),
        (1, "superseded"),
    ]
    active = shop.api("GET", "functions/deployments?active=1").body
    assert [row["version"] for row in active["data"]] == [2]
    assert (active["total"], active["offset"]) == (1, 0)


@pytest.mark.parametrize("prefix", ["/v1", "", "//v1"])
def test_with_and_without_v1(shop: Shop, prefix: str) -> None:
    """Both path styles, and the doubled slash of an origin with one at its end (G.1, H-6)."""
    assert shop.upload("hello", answering("x"), prefix=prefix).status == 201


def test_an_import_that_was_left_is_refused_with_its_reason(shop: Shop) -> None:
    """What the 0.1.x command line leaves external is DEPLOY_REJECTED by name (H-7, J 4)."""
    told = shop.upload("hello", b'import{z as a}from"zod";export default{fetch(){return a}};')
    assert told.said == (400, "DEPLOY_REJECTED")
    details = told.body["error"]["details"]
    assert details["upstream_status"] == 400
    (violation,) = details["violations"]
    assert violation["code"] == "EXTERNAL_IMPORT"
    assert "zod" in violation["message"]
    assert violation["line"] == 1
    assert shop.call("hello").said == (404, "FUNCTION_NOT_FOUND")


def test_a_function_as_default_export_is_refused(shop: Shop) -> None:
    """Judged by what it really is, in the sandbox that would serve it (B, J 4)."""
    told = shop.upload("hello", b"export default async function (request) {}")
    assert told.said == (400, "DEPLOY_REJECTED")
    codes = [v["code"] for v in told.body["error"]["details"]["violations"]]
    assert codes == ["DEFAULT_EXPORT_FUNCTION"]


def test_a_rollback_brings_the_old_bundle_back(shop: Shop) -> None:
    """A new deployment of an old version, in the shape of a deploy (D.4, H-26)."""
    for text in ("one", "two"):
        shop.upload("hello", answering(text))
    told = shop.api("POST", "functions/hello/rollback", {"version": 1})
    assert (told.status, told.data["version"], told.data["rolled_back_from"]) == (201, 3, 1)
    assert shop.call("hello").body == "one"


def test_projects_do_not_see_each_others_functions(shop: Shop) -> None:
    """The same name in another project is another function (A.1)."""
    from tests.contract.hosted import make_shop

    other = make_shop(shop.node, "Other")
    shop.upload("hello", answering("mine"))
    assert other.call("hello").said == (404, "FUNCTION_NOT_FOUND")
    other.upload("hello", guest("env-dump"))
    assert other.call("hello").body["values"]["AMBA_PROJECT_ID"] == other.id
    assert shop.call("hello").body == "mine"
