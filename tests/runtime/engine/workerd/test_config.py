"""The configuration text: nothing in a name or value can become anything but itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from amba_runtime.engine.workerd import config
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId


def rendered(
    code: str = "",
    *,
    storage: bool = False,
    database: bool = False,
    env: tuple[tuple[str, str], ...] = (),
) -> str:
    manifest = Manifest(ProjectId("p"), FunctionName("f"), 1, env, storage, "2026-02-03")
    return config.render(
        manifest,
        Bundle.of(code.encode()),
        egress=Path("/t/egress.sock"),
        log=Path("/t/log.sock"),
        cache=Path("/t/cache.sock"),
        storage=Path("/t/r2.sock") if storage else None,
        mark="0123456789abcdef",
        database=Path("/t/database.sock") if database else None,
    )


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("plain", '"plain"'),
        ("", '""'),
        ('quote " and \\', '"quote \\" and \\\\"'),
        ("line\nbreak\ttab\r", '"line\\x0abreak\\x09tab\\x0d"'),
        ("\x00\x7f", '"\\x00\\x7f"'),
        ("é☕", '"\\xc3\\xa9\\xe2\\x98\\x95"'),
        ("\ud800", '"\\xed\\xa0\\x80"'),
        ('")), (name = "x"', '"\\")), (name = \\"x\\""'),
    ],
)
def test_text_is_escaped_byte_by_byte(value: str, literal: str) -> None:
    """Printable ASCII stays, the rest is its UTF-8 in hex: no value can end its literal."""
    assert config.text(value) == literal


@pytest.mark.parametrize(
    ("code", "classic"),
    [
        ("addEventListener('fetch', f)", True),
        ("addEventListener ( 'fetch', f)", True),
        ("addEventListener('fetch', f); export default {}", False),
        ("addEventListener('x', f); export { a }", False),
        ("addEventListener('x', f); export{a}", False),
        ("addEventListener('x', f); export * from 'y'", False),
        ("addEventListener('x', f); export const a = 1", False),
        ("export default {}", False),
        ("exports.addEventListener('x')", True),
        ("1", False),
        ("", False),
    ],
)
def test_the_classic_form_is_known_by_its_listener(code: str, classic: bool) -> None:
    """A script that listens and exports nothing (contract B, legacy form)."""
    assert config.is_classic(Bundle.of(code.encode())) is classic


def test_bindings_come_in_order() -> None:
    """Platform strings first, then secrets, as the manifest has them."""
    text = rendered(env=(("B", "1"), ("A", "2")))
    assert text.index('(name = "B", text = "1")') < text.index('(name = "A", text = "2")')
    assert 'compatibilityDate = "2026-02-03"' in text


def test_storage_is_a_bucket_only_where_it_is_wanted() -> None:
    """Without it neither the binding nor the service is there."""
    assert 'r2Bucket = "storage"' in rendered(storage=True)
    assert "unix:/t/r2.sock" in rendered(storage=True)
    assert "r2Bucket" not in rendered()


def test_the_database_is_a_service_only_where_it_is_wanted() -> None:
    """Without it neither the binding nor the service is there (contract C, FN)."""
    assert '(name = "EDGE_DB_PROXY", service = "database")' in rendered(database=True)
    assert "unix:/t/database.sock" in rendered(database=True)
    assert "database" not in rendered()


def test_everything_outside_goes_through_us() -> None:
    """The only way out is our egress socket, in absolute form (engines.md 3)."""
    text = rendered()
    assert 'globalOutbound = "internet"' in text
    assert '(name = "internet", external = (address = "unix:/t/egress.sock"' in text
    assert "style = proxy" in text
    assert "network" not in text


@pytest.mark.parametrize("word", ["console", "waitUntil", "WebSocket", "ReadableStream"])
def test_a_bundle_that_may_speak_is_listened_to(word: str) -> None:
    """Only one that names nothing of that kind goes without tracking."""
    assert "__AMBA_SILENT" in rendered("export default {}")
    assert "__AMBA_SILENT" not in rendered(f"export default {{}}; // {word}")


@pytest.mark.parametrize(
    ("code", "silent"),
    [
        ("export default { fetch() { return new Response('') } }", True),
        (
            "var a={async fetch(b){return new Response(prefetch+fetched)}};export{a as default}",
            True,
        ),
        ("export default { fetch() { return fetch('http://x') } }", False),
        ("const f = fetch;\nexport default {\n fetch() { return f('http://x') } }", False),
        ("export default { fetch() { return new EventSource('x') } }", False),
        ("export default { fetch() { navigator.sendBeacon('x') } }", False),
        ("export default { fetch() { console.log(1) } }", False),
        ("export default { async fetch(r, { EDGE_DB_PROXY: db }) {} }", False),
    ],
)
def test_a_bundle_that_fetches_is_tracked(code: str, silent: bool) -> None:
    """Only one whose single `fetch` is its handler needs no context per invocation (row E17)."""
    assert ("__AMBA_SILENT" in rendered(code)) == silent


def test_the_limits_that_the_shim_keeps_are_given_to_it() -> None:
    """Those of the manifest, which are those in force for the function (reliability.md 2.3)."""
    assert '(name = "__AMBA_LIMITS", text = "[1000,6,256]")' in rendered()
