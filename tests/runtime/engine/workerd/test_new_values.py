"""New values of bindings in an isolate that runs: secrets that are set, tokens that are rotated."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.runtime.engine.lab import Lab, ask, on_workerd

from amba_runtime.wire import Request, Response, WireError

pytestmark = pytest.mark.slow

MODULE = """
import { env as imported } from "cloudflare:workers";
export default {
  async fetch(request, env, ctx) {
    const before = env.KEY;
    if (request.url.endsWith("/slow")) await fetch("http://gate.example/");
    if (request.url.endsWith("/work")) {
      ctx.waitUntil(fetch("http://gate.example/"));
      ctx.waitUntil(Promise.reject(new Error("at once")));
    }
    const names = Object.keys(env);
    return Response.json({ before, after: env.KEY, imported: imported.KEY, names });
  },
};
"""


class Gate:
    """Holds a guest's fetch until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        self.reached.set()
        await self.opened.wait()
        return Response(204)


def test_later_invocations_see_them() -> None:
    """Before the first one, and after it; others stay as they are (contract C.2)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(MODULE, env=[("KEY", "1"), ("OTHER", "x")])
        await isolate.configure({"KEY": "2"})
        seen = json.loads((await ask(isolate)).body)
        assert seen == {"before": "2", "after": "2", "imported": "2", "names": ["KEY", "OTHER"]}
        await isolate.configure({"KEY": "3", "NEW": 'quote " \x00 \u2603'})
        seen = json.loads((await ask(isolate)).body)
        assert seen["before"] == "3"
        assert seen["names"] == ["KEY", "OTHER", "NEW"]

    on_workerd(body)


def test_one_under_way_keeps_the_env_that_it_has() -> None:
    """Its env object does not change under its hands; the next one's is new."""

    async def body(lab: Lab) -> None:
        gate = Gate()
        isolate = await lab.serving(MODULE, env=[("KEY", "1")], egress=gate)
        slow = asyncio.create_task(ask(isolate, "/slow"))
        await gate.reached.wait()
        await isolate.configure({"KEY": "2"})
        assert json.loads((await ask(isolate)).body)["before"] == "2"
        gate.opened.set()
        seen = json.loads((await slow).body)
        assert (seen["before"], seen["after"]) == ("1", "1")

    on_workerd(body)


def test_a_legacy_script_has_them_as_globals() -> None:
    """The names that were globals before (contract B, legacy form)."""

    async def body(lab: Lab) -> None:
        source = "addEventListener('fetch', (e) => e.respondWith(new Response(KEY)));"
        isolate = await lab.serving(source, env=[("KEY", "1")])
        assert (await ask(isolate)).body == b"1"
        await isolate.configure({"KEY": "2"})
        assert (await ask(isolate)).body == b"2"

    on_workerd(body)


def test_a_guest_that_spoils_the_realm_cannot_read_along() -> None:
    """Setters on Object.prototype see no value on its way."""

    async def body(lab: Lab) -> None:
        source = """
        const caught = [];
        for (const name of ["KEY", "SECRET"]) {
          Object.defineProperty(Object.prototype, name, {
            set(value) { caught.push([name, typeof this]); }, get() {}, configurable: true,
          });
        }
        Object.keys = () => [];
        export default { fetch(request, env) {
          return Response.json({ own: Object.hasOwn(env, "SECRET"), value: env.SECRET, caught });
        } };
        """
        isolate = await lab.serving(source)
        await ask(isolate)
        await isolate.configure({"SECRET": "s"})
        seen = json.loads((await ask(isolate)).body)
        assert (seen["own"], seen["value"]) == (True, "s")

    on_workerd(body)


def test_unfinished_work_is_counted() -> None:
    """Promises given to `waitUntil`, until they settle, however they do (style.md, drain)."""

    async def body(lab: Lab) -> None:
        gate = Gate()
        isolate = await lab.serving(MODULE, env=[("KEY", "1")], egress=gate)
        assert await isolate.pending() == 0
        await ask(isolate, "/work")
        await gate.reached.wait()
        assert await isolate.pending() == 1
        gate.opened.set()
        async with asyncio.timeout(5):
            while await isolate.pending():
                pass

    on_workerd(body)


def test_one_that_is_gone_says_so() -> None:
    """A WireError, as for everything else."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(MODULE, env=[("KEY", "1")])
        await isolate.close()
        with pytest.raises(WireError):
            await isolate.configure({"KEY": "2"})
        with pytest.raises(WireError):
            await isolate.pending()

    on_workerd(body)
