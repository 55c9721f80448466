"""Which requests a page of another site may have sent: a truth table of what browsers write."""

from __future__ import annotations

import pytest

from amba_router.pages import NO_BROWSER, Pages, is_loopback, parse_origin, sender_of
from amba_runtime.errors import UserCode, UserError

Fields = list[tuple[bytes, bytes]]
CROSS = (b"sec-fetch-site", b"cross-site")
NAVIGATE = [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document")]


def origin(text: str) -> tuple[bytes, bytes]:
    return (b"origin", text.encode())


def referer(text: str) -> tuple[bytes, bytes]:
    return (b"referer", text.encode())


LOOPBACK = [
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:3000",
    "http://127.0.0.1:5173",
    "http://127.9.9.9",
    "http://[::1]:8080",
    "http://local.fn.localhost:8787",
    "capacitor://localhost",
    "http://LOCALHOST:3000",
]
FOREIGN = [
    "null",
    "https://evil.example",
    "http://localhost.evil.example",
    "http://evil.example:8787",
    "http://127.0.0.1.nip.io",
    "http://notlocalhost",
    "http://0.0.0.0:8787",
    "http://192.168.1.5:3000",
    "http://[::ffff:127.0.0.1]",
    "http://localhost@evil.example",
    "http://evil.example#localhost",
    "http://localhost:3000, http://evil.example",
    "http://localhost\\.evil.example",
    "chrome-extension://abcdefgh",
    "file://",
    "localhost",
    "?",
]


@pytest.mark.parametrize("text", LOOPBACK)
def test_pages_of_this_machine_may(text: str) -> None:
    """A developer's own front end on another port is no stranger (T10)."""
    assert not Pages().foreign([origin(text)])
    assert not Pages().foreign([origin(text), CROSS])
    for kind in ("http", "websocket"):
        assert Pages().refuses([origin(text), CROSS], method="POST", kind=kind) == ""
    assert is_loopback(text.lower())


@pytest.mark.parametrize("text", FOREIGN)
def test_pages_from_elsewhere_are_foreign(text: str) -> None:
    """Suffix tricks, `null`, other machines: 0 are taken for this machine's (C4, C5)."""
    assert Pages().foreign([origin(text)])
    assert Pages().refuses([origin(text)], method="GET", kind="websocket")
    assert Pages().refuses([origin(text), CROSS], method="POST", kind="http")
    assert not is_loopback(text.lower())


@pytest.mark.parametrize(
    ("fields", "foreign", "http", "websocket"),
    [
        ([], False, "", ""),
        ([(b"host", b"x"), (b"accept", b"*/*")], False, "", ""),
        # a program that tries out CORS is answered, as nobody in particular
        ([origin("https://a.example")], True, "", "https://a.example"),
        ([CROSS], True, "an unknown page", "an unknown page"),
        ([CROSS, referer("http://localhost:3000/p?q")], False, "", ""),
        ([CROSS, referer("http://localhost:3000")], False, "", ""),
        ([CROSS, referer("http://localhost:3000.evil.example/")], True, "an unknown page", "*"),
        ([CROSS, referer("http://localhost@evil.example/")], True, "an unknown page", "*"),
        ([CROSS, referer("https://evil.example/x")], True, "https://evil.example", "*"),
        ([CROSS, referer("nonsense")], True, "an unknown page", "*"),
        # the page's own word weighs more than where it says it was
        ([CROSS, origin("null"), referer("http://localhost/")], True, "null", "null"),
        ([origin("http://localhost"), origin("http://evil.example")], True, "", "?"),
        ([(b"sec-fetch-site", b"same-origin")], False, "", ""),
        ([(b"sec-fetch-site", b"same-site")], False, "", ""),
        ([(b"sec-fetch-site", b"none")], False, "", ""),
        # a link that is followed, as after a sign-in elsewhere: let in, and nobody
        ([CROSS, *NAVIGATE], True, "", "an unknown page"),
        ([CROSS, (b"sec-fetch-mode", b"navigate")], True, "", "an unknown page"),
        (
            [CROSS, (b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"iframe")],
            True,
            "an unknown page",
            "an unknown page",
        ),
        ([CROSS, (b"sec-fetch-mode", b"no-cors")], True, "an unknown page", "an unknown page"),
    ],
)
def test_what_a_browser_says(fields: Fields, foreign: bool, http: str, websocket: str) -> None:
    """GET requests by what their headers say (C3, C5); `*` stands for any refusal."""
    pages = Pages()
    assert pages.foreign(fields) is foreign
    assert pages.refuses(fields, method="GET", kind="http") == http
    refused = pages.refuses(fields, method="GET", kind="websocket")
    assert refused == websocket or (websocket == "*" and refused)


@pytest.mark.parametrize(
    ("method", "let_in"),
    [("GET", True), ("HEAD", True), ("POST", False), ("PUT", False), ("get", False)],
)
def test_only_a_link_is_followed(method: str, let_in: bool) -> None:
    """A form that another site's page sends off is no link (C3)."""
    refused = Pages().refuses([CROSS, *NAVIGATE], method=method, kind="http")
    assert (refused == "") is let_in


@pytest.mark.parametrize(
    "text", ["https://app.example", "https://APP.example/", "https://app.example:8443", "null"]
)
def test_allowed_origins_are_let_in(text: str) -> None:
    """`--allow-origin` opens for exactly that scheme, host and port."""
    pages = Pages([text])
    sent = text.lower().rstrip("/")
    assert not pages.foreign([origin(sent), CROSS])
    assert pages.refuses([origin(sent), CROSS], method="POST", kind="websocket") == ""
    for other in ("http://app.example", "https://app.example:1", "https://x.app.example"):
        assert pages.foreign([origin(other)])


@pytest.mark.parametrize(
    "text", ["", "*", "app.example", "https://", "https://a/b", "https://a b", "https://*.a", "//a"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    """There is no way to say "all of them"; the message shows how it is said."""
    with pytest.raises(UserError, match="is no origin") as caught:
        parse_origin(text)
    assert caught.value.code is UserCode.INVALID_CONFIG
    assert "--allow-origin https://app.example.com" in caught.value.hint


def test_a_program_costs_nothing() -> None:
    """Where nothing is said, one shared value says so."""
    assert sender_of([(b"host", b"x"), (b"referer", b"http://evil.example/")]) is NO_BROWSER
