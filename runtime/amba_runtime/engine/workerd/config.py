"""The configuration of one workerd process, as Cap'n Proto text.

Knows workerd's own words for bindings, services and sockets; no other module does.
Source: workerd.capnp of the pinned version; engines.md section 3.
"""

from __future__ import annotations

import re
from pathlib import Path

from amba_runtime import limits
from amba_runtime.bindings.database import DATABASE_NAME
from amba_runtime.engine.base import GUEST_MODULE
from amba_runtime.manifest import Bundle, Manifest

ENTRY_MODULE = "shim.mjs"
SHIM_MODULES = (ENTRY_MODULE, "prelude.mjs", "subrequests.mjs", "guest.mjs")
"""Files of ours around a guest's. What the last three export is handed out once, before the guest
runs: it can import them, and finds functions that do nothing, and its own namespace."""
CONTROL_MODULE = "control.mjs"
UNSAYABLE = r"shim\xff.mjs"
"""What the engine knows the first by: no UTF-8, so that no `import()` of a guest can name it.

A stack shows U+FFFD in the byte's place, which is another name (seen 2026-11-23).
"""
_EXPORTS = re.compile(
    rb"\bexport\s*(?:\{|\*|default\b|const\b|let\b|var\b|function\b|class\b|async\b)"
)
# words of a bundle that may have more to tell of an invocation than its answer, or whose calls
# are counted
_SPEAKS = re.compile(
    rb"console|waitUntil|WebSocket|ReadableStream|EventSource|sendBeacon|\bSTORAGE\b|\bcaches\b"
    rb"|\bEDGE_DB_PROXY\b|\bfetch\b(?s:.*)\bfetch\b"
)
_LISTENS = re.compile(rb"\baddEventListener\s*\(")


def is_classic(bundle: Bundle) -> bool:
    """True for the `addEventListener('fetch', ...)` form, whose bindings are globals.

    Source: contract B (legacy form).
    """
    return _EXPORTS.search(bundle.code) is None and _LISTENS.search(bundle.code) is not None


def text(value: str) -> str:
    """A Cap'n Proto text literal: printable ASCII as it is, every other byte escaped."""
    out = ['"']
    for byte in value.encode("utf-8", "surrogatepass"):
        if byte in b'"\\':
            out.append("\\" + chr(byte))
        elif 0x20 <= byte < 0x7F:
            out.append(chr(byte))
        else:
            out.append(f"\\x{byte:02x}")
    out.append('"')
    return "".join(out)


def render(
    manifest: Manifest,
    bundle: Bundle,
    *,
    egress: Path,
    log: Path,
    cache: Path,
    storage: Path | None,
    mark: str,
    database: Path | None = None,
) -> str:
    """The whole configuration; the modules it embeds lie in its own folder.

    Args:
        egress, log, cache, storage, database: Unix sockets that we serve.
        mark: of `Surroundings`.
    """
    bindings = [f"(name = {text(n)}, text = {text(v)})" for n, v in manifest.env]
    bindings.append('(name = "__AMBA_LOG", service = "log")')
    bindings.append(f'(name = "__AMBA_MARK", text = {text(mark)})')
    most = manifest.limits
    counts = f"[{most.subrequests},{most.subrequests_at_once},{most.log_kib}]"
    bindings.append(f'(name = "__AMBA_LIMITS", text = {text(counts)})')
    # the header that `request.cf` is read from: nobody sends it, and without it the engine would
    # put its peer's (our) process and user id there
    http = f'(capnpConnectHost = "", cfBlobHeader = {text(f"amba-run-cf-{mark}")})'
    if _SPEAKS.search(bundle.code) is None:
        bindings.append('(name = "__AMBA_SILENT", text = "1")')
    if is_classic(bundle):
        bindings.append('(name = "__AMBA_CLASSIC", text = "1")')
    services: list[str] = []
    if storage is not None:
        bindings.append('(name = "STORAGE", r2Bucket = "storage")')
        services.append(_external("storage", storage))
    if database is not None:
        bindings.append(f'(name = "{DATABASE_NAME}", service = "database")')
        services.append(_external("database", database))
    date = text(manifest.compatibility_date)
    modules = ", ".join(
        [f'(name = "{UNSAYABLE}", esModule = embed {text(ENTRY_MODULE)})']
        + [
            f"(name = {text(name)}, esModule = embed {text(name)})"
            for name in (*SHIM_MODULES[1:], GUEST_MODULE)
        ]
    )
    return f"""using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  v8Flags = [{", ".join(map(text, heap(most.memory_mib)))}],
  services = [
    (name = "fn", worker = (
      modules = [{modules}],
      compatibilityDate = {date},
      compatibilityFlags = ["nodejs_als", "disable_ctx_exports"],
      bindings = [{", ".join(bindings)}],
      globalOutbound = "internet",
      cacheApiOutbound = "cache",
    )),
    (name = "control", worker = (
      modules = [(name = "control.mjs", esModule = embed "control.mjs")],
      compatibilityDate = {date},
      compatibilityFlags = ["service_binding_extra_handlers"],
      bindings = [
        (name = "FN", service = "fn"),
        (name = "GUEST", service = (name = "fn", entrypoint = "AmbaControl")),
      ],
    )),
    (name = "internet", external = (address = {text(f"unix:{egress}")}, http = (style = proxy))),
    {_external("log", log)},
    {_external("cache", cache)},
    {", ".join(services)}
  ],
  sockets = [
    (name = "fn", service = "fn", http = {http}),
    (name = "control", service = "control"),
  ],
);
"""


def heap_mib(memory_mib: int) -> int:
    """What JavaScript's own heap may fill of a process that may hold so much."""
    return memory_mib * limits.HEAP_SHARE.value // 100


def heap(memory_mib: int) -> tuple[str, ...]:
    """V8's flags for a process that may hold so much.

    Left alone, V8 sizes its heap by the machine: under load a function that keeps nothing grows
    past 256 MiB, most of it dead objects of the engine that only a whole collection frees, and
    is ended for it. Small beginnings bound that to about 80 MiB and shorten the longest pauses.
    """
    first = min(limits.HEAP_FIRST.value, memory_mib // 8)
    young = limits.HEAP_YOUNG.value
    return (
        f"--max-heap-size={heap_mib(memory_mib)}",
        f"--initial-heap-size={first}",
        f"--max-semi-space-size={young}",
    )


def _external(name: str, path: Path) -> str:
    return f"(name = {text(name)}, external = (address = {text(f'unix:{path}')}, http = ()))"
