"""What a guest can find of ours in the realm that it shares with us: nothing of any worth.

What a guest is not shown there is the name of our headers (`Surroundings.mark`). Who knows it can
lie to the host about itself, and about nobody else: names that the host does not know are nobody's
(callers.py). These guests look for it wherever a guest has been able to look.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.runtime.engine.lab import MARK, Lab, ask, on_workerd

from amba_runtime.engine.base import HOST_MODULES

pytestmark = pytest.mark.slow

HUNTER = """
const seen = [];
const sites = (error) => {
  const before = Error.prepareStackTrace;
  Error.prepareStackTrace = (_, frames) =>
    frames.flatMap((f) => [f.getFileName(), f.getScriptNameOrSourceURL(), f.getEvalOrigin()]);
  const found = error().stack;
  Error.prepareStackTrace = before;
  return Array.isArray(found) ? found.filter((name) => typeof name === "string") : [];
};
const list = (value) => {
  const found = [];
  for (let at = value; at !== null && at !== undefined; at = Object.getPrototypeOf(at)) {
    for (const key of Reflect.ownKeys(at)) found.push(String(key));
  }
  return found;
};
async function hunt(request, env, ctx) {
  const names = new Set(["shim.mjs", "prelude.mjs", "subrequests.mjs", "guest.mjs", "control.mjs"]);
  for (const name of sites(() => new Error("a"))) names.add(name);
  console.log({ toJSON() { for (const name of sites(() => new Error("b"))) names.add(name); } });
  for (const name of [...names]) {
    for (const odd of ["\\xff", "\\udcff", "%ff", "\\ufffd", "?", ""]) {
      names.add(name.replace("\\ufffd", odd));
    }
  }
  const found = {};
  for (const name of names) {
    for (const how of [name, "./" + name, "/" + name, "file:///" + name, "worker:///" + name]) {
      try {
        const module = await import(how);
        found[how] = {};
        for (const key of Object.keys(module)) {
          let gave;
          try {
            gave = key === "default" ? "default" : module[key]({ mark: "mine" });
          } catch (error) {
            gave = error.message;
          }
          found[how][key] = [typeof module[key], gave === null ? null : String(gave)];
        }
      } catch {}
    }
  }
  const { exports, withExports } = await import("cloudflare:workers");
  const gave = {};
  for (const name of ["default", "AmbaControl"]) {
    for (const [how, get] of [
      ["get", () => exports[name]],
      ["descriptor", () => Object.getOwnPropertyDescriptor(exports, name).value],
      ["inherited", () => Object.create(exports)[name]],
      ["other receiver", () => Reflect.get(exports, name, {})],
      ["deleted", () => (Reflect.deleteProperty(exports, name), exports[name])],
      ["replaced", () => (Object.defineProperty(exports, name, { value: 1 }), exports[name])],
      ["within others", () => withExports({}, () => exports[name])],
      ["spread", () => ({ ...exports })[name]],
    ]) {
      try {
        const it = get();
        gave[name + " " + how] = it === undefined ? null : (await it.fetch(request)).status;
      } catch (error) {
        gave[name + " " + how] = error instanceof TypeError ? null : String(error);
      }
    }
  }
  const told = {
    names: [...names], found, gave, env: list(env), ctx: list(ctx), globals: list(globalThis),
  };
  return Response.json({ told, seen });
}
"""

HUNT = (
    HUNTER
    + """
export default { async fetch(request, env, ctx) {
  return new URL(request.url).pathname === "/hunt" ? hunt(request, env, ctx) : new Response("");
} };
"""
)


def test_a_guest_that_looks_for_our_modules_finds_none_that_gives_anything() -> None:
    """By every name that a stack, a call site or a guess gives: our entry cannot be had, and the
    other three give nothing that was not given before the guest ran (battery E, row E27)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(HUNT, env=[("A", "1")])
        said = (await ask(isolate, "/hunt")).body.decode()
        told = json.loads(said)["told"]
        assert HOST_MODULES[0] in told["names"], "it saw our frames, and tried their names"
        found: dict[str, Any] = {}
        for how, exports in told["found"].items():
            found.setdefault(how.rpartition("/")[2], {}).update(exports)
        assert {name: sorted(exports) for name, exports in found.items()} == {
            "fn.mjs": ["default"],
            "prelude.mjs": ["take"],
            "subrequests.mjs": ["guardFetches"],
            "guest.mjs": ["guest"],
        }
        assert found["prelude.mjs"]["take"] == ["function", None]
        assert found["subrequests.mjs"]["guardFetches"] == ["function", "undefined"]
        assert set(json.loads(said)["told"]["gave"].values()) == {None}
        assert MARK not in said
        assert "__AMBA" not in said

    on_workerd(body)


TRAPS = {
    "then": """Object.defineProperty(Object.prototype, "then", { get() { look(this); } });""",
    "Response.then": """Object.defineProperty(Response.prototype, "then",
      { configurable: true, get() { look(this); } });""",
    "env": """for (const name of ["env", "ctx"]) Object.defineProperty(Object.prototype, name, {
      set(value) { look(this); look(value); } });""",
    "headers": """for (const [type, name] of [[Response, "headers"], [Request, "headers"]]) {
      const { get } = Object.getOwnPropertyDescriptor(type.prototype, name);
      Object.defineProperty(type.prototype, name,
        { get() { seen.push("read"); return get.call(this); } });
    }""",
    "constructor": """for (const type of [Promise, Response, Request, Headers]) {
      const own = type.prototype.constructor;
      Object.defineProperty(type.prototype, "constructor", { get() { look(this); return own; } });
    }""",
    "toString": """for (const name of ["toString", "valueOf", "toJSON", "length", "0"]) {
      Object.defineProperty(Object.prototype, name, { configurable: true,
        set(value) { look(this); Object.defineProperty(this, name, { value, writable: true }); } });
    }""",
}


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("kind", ["async ", ""])
@pytest.mark.parametrize("ending", ["return new Response('hi');", "throw new Error('no');"])
def test_a_trap_on_all_objects_is_shown_none_of_ours(name: str, kind: str, ending: str) -> None:
    """Neither the answer that carries what was logged, nor the instance that the host speaks to,
    nor a request that says whose it is (battery E, row E27)."""
    source = f"""
const seen = [];
const headers = Object.getOwnPropertyDescriptor(Response.prototype, "headers").get;
const asked = Object.getOwnPropertyDescriptor(Request.prototype, "headers").get;
const keys = Headers.prototype.keys;
function look(what) {{
  for (const get of [headers, asked]) {{
    try {{ for (const key of keys.call(get.call(what))) seen[seen.length] = key; }} catch {{}}
  }}
  try {{ seen[seen.length] = Object.getPrototypeOf(what).constructor.name; }} catch {{}}
}}
{TRAPS[name]}
export default {{ {kind}fetch(request, env, ctx) {{
  if (request.url.endsWith("/see")) return new Response(JSON.stringify(seen));
  console.log("a line");
  try {{ ctx.waitUntil(fetch("http://x.test/").catch(() => 0)); }} catch {{}}
  {ending}
}} }};
"""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(source)
        answer = await ask(isolate)
        assert answer.tell is not None
        assert answer.threw == ("throw" in ending)
        await isolate.ping()
        assert await isolate.pending() >= 0
        seen = (await ask(isolate, "/see")).body.decode()
        assert MARK not in seen
        assert "AmbaControl" not in seen

    on_workerd(body)
