"""Who is calling: the truth table of credentials, and that a bad one is nobody, never an error."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jwt
import pytest

from amba_router.identity import NOBODY, SESSION_S, Identities, Identity, parse_persona
from amba_router.pages import Pages
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.errors import UserCode, UserError

PROJECT = "11111111-2222-4333-8444-555555555555"
KEY = b"s" * 32
PAT = "amb_dpat_" + "A" * 32
USER = Identity(user_id="u_42")


def make(persona: Identity = NOBODY) -> tuple[Identities, ManualClock]:
    clock = ManualClock()
    identities = Identities(PROJECT, session_key=KEY, clock=clock, persona=persona)
    identities.add_pat(PAT, "d_1")
    return identities, clock


def claims(**changed: Any) -> dict[str, Any]:
    now = int(ManualClock().time_s())
    whole = {"sub": "u_42", "pid": PROJECT, "anon": None, "iat": now, "exp": now + 60}
    return {k: v for k, v in {**whole, **changed}.items() if v != "absent"}


def token(key: bytes = KEY, algorithm: str = "HS256", **changed: Any) -> bytes:
    encode: Callable[..., str] = vars(jwt)["encode"]
    return encode(claims(**changed), key, algorithm=algorithm).encode()


def bearer(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), (b"authorization", b"Bearer " + value)]


def unsigned(header: dict[str, Any], body: dict[str, Any], mac: bytes = b"") -> bytes:
    parts = [json.dumps(part).encode() for part in (header, body)]
    return b".".join(base64.urlsafe_b64encode(p).rstrip(b"=") for p in (*parts, mac))


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER   "])
def test_a_session_token_is_its_user(scheme: bytes) -> None:
    """A valid session token names the end user (A.6)."""
    identities, _ = make()
    own = identities.mint_session("u_42", anonymous_id="a_1").encode()
    for text in (own, token()):
        assert identities.of([(b"authorization", scheme + text)]) == USER
    decode: Callable[..., dict[str, Any]] = vars(jwt)["decode"]
    decoded = decode(own, KEY, algorithms=["HS256"], options={"verify_exp": False})
    assert decoded["exp"] - decoded["iat"] == SESSION_S == 30 * 86400
    assert (decoded["sub"], decoded["pid"], decoded["anon"]) == ("u_42", PROJECT, "a_1")


def test_a_pat_is_its_developer() -> None:
    """A personal access token names its developer, and never a user too (A.6)."""
    identities, _ = make()
    assert identities.of(bearer(PAT.encode())) == Identity(developer_id="d_1")


NOW = int(ManualClock().time_s())
INVALID = {
    "expired": token(exp=NOW),
    "expired long ago": token(exp=0),
    "no expiry": token(exp="absent"),
    "expiry is text": token(exp="soon"),
    "expiry is null": token(exp=None),
    "other project": token(pid="22222222-2222-4333-8444-555555555555"),
    "no project": token(pid="absent"),
    "project is a list": token(pid=[PROJECT]),
    "other key": token(b"x" * 32),
    "other algorithm": token(b"s" * 64, "HS512"),
    "no user": token(sub="absent"),
    "empty user": token(sub=""),
    "user is a number": token(sub=42),
    "user holds a line feed": token(sub="u_42\nd_1"),
    "user is not ASCII": token(sub="пользователь"),
    "user is too long": token(sub="u" * 513),
    "alg none": unsigned({"alg": "none", "typ": "JWT"}, claims()),
    "alg None": unsigned({"alg": "None", "typ": "JWT"}, claims()),
    "alg none with a MAC": unsigned({"alg": "none"}, claims(), b"m" * 32),
    "alg HS256 without a MAC": unsigned({"alg": "HS256"}, claims()),
    "alg HS256, MAC of zeros": unsigned({"alg": "HS256"}, claims(), b"\0" * 32),
    "alg is a list": unsigned({"alg": ["HS256"]}, claims(), b"m" * 32),
    "no header": unsigned({}, claims(), b"m" * 32),
    "one byte changed": token()[:-2] + b"AA",
    "truncated": token()[:-20],
    "a byte more": token() + b"A",
    "two parts": b".".join(token().split(b".")[:2]),
    "four parts": token() + b".x",
    "only dots": b"..",
    "garbage": b"garbage",
    "garbage with dots": b"a.b.c",
    "not UTF-8": b"\xff.\xfe.\xfd",
    "empty": b"",
    "very long": b"a" * 60_000,
    "NUL": token() + b"\0",
    "an unknown PAT": b"amb_dpat_" + b"B" * 32,
    "a PAT and a blank": PAT.encode() + b" x",
    "a short PAT": PAT[:-1].encode(),
    "a long PAT": PAT.encode() + b"A",
    "a PAT in capitals": PAT.upper().encode(),
    "a PAT with an odd character": b"amb_dpat_" + b"A" * 31 + b"\xe9",
    "a comma list": token() + b", Bearer " + token(),
    "a client key": b"amb_dev_ck_" + b"A" * 32,
}


@pytest.mark.parametrize("credential", INVALID.values(), ids=INVALID.keys())
@pytest.mark.parametrize("persona", [NOBODY, Identity(developer_id="d_local")], ids=["", "persona"])
def test_an_invalid_credential_is_nobody(
    credential: bytes, persona: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    """Never an error, never the persona: nobody, with one warning without the token (H-4)."""
    identities, _ = make(persona)
    with caplog.at_level(logging.WARNING, "amba.identity"):
        assert identities.of(bearer(credential)) == NOBODY
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("a request's credential was ignored: ")
    assert "\n" not in message
    assert len(credential) < 12 or credential.decode("latin-1") not in message


@pytest.mark.parametrize(
    "value",
    [
        b"Basic dXNlcjpwYXNz",
        b"Digest username=x",
        b"Stripe t=1,v1=abc",
        b"",
        b"Bearer",
        b"BearerX " + PAT.encode(),
        PAT.encode(),
        b"Basic " + PAT.encode(),
    ],
)
def test_another_scheme_is_the_functions_own_business(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Basic and the like are nobody to us, the persona included (A.6)."""
    identities, _ = make(USER)
    with caplog.at_level(logging.WARNING):
        assert identities.of([(b"authorization", value)]) == NOBODY
    assert [r.getMessage() for r in caplog.records if "neither" not in r.getMessage()] == []


def test_the_first_of_two_credentials_decides() -> None:
    """Two Authorization headers are read in order, so that nothing behind one counts."""
    identities, _ = make()
    pat = (b"authorization", b"Bearer " + PAT.encode())
    basic = (b"authorization", b"Basic dXNlcjpwYXNz")
    assert identities.of([pat, basic]) == Identity(developer_id="d_1")
    assert identities.of([basic, pat]) == NOBODY


@pytest.mark.parametrize("persona", [NOBODY, USER, Identity(developer_id="d_9")])
def test_without_a_credential_the_persona_is_who_calls(persona: Identity) -> None:
    """`--as` speaks for requests that carry no credential, and only for those."""
    identities, _ = make(persona)
    assert identities.of([(b"cookie", b"session=x"), (b"x-api-key", b"k")]) == persona
    assert identities.of([]) == persona
    assert identities.of(bearer(PAT.encode())) == Identity(developer_id="d_1")


def test_a_remembered_session_still_expires(caplog: pytest.LogCaptureFixture) -> None:
    """A verified token is remembered until it expires, to the second, and no longer (A.6)."""
    identities, clock = make()
    fields = bearer(token(exp=NOW + 60))
    clock.jump(59.9)
    assert [identities.of(fields) for _ in range(3)] == [USER] * 3
    clock.jump(0.1)
    assert identities.of(fields) == NOBODY
    clock.jump(-1)
    assert identities.of(fields) == USER
    assert "expired" in caplog.text


def test_the_memory_of_tokens_is_bounded() -> None:
    """A flood of valid tokens costs a bounded memory and none of them its meaning."""
    identities, _ = make()
    first = bearer(token())
    assert identities.of(first) == USER
    for n in range(limits.TOKEN_CACHE.value):
        assert identities.of([(b"authorization", b"Bearer %b%b" % (b" " * n, PAT.encode()))]) == (
            Identity(developer_id="d_1")
        )
    assert identities.of(first) == USER


def test_two_projects_do_not_share_users() -> None:
    """A project's token is nobody at another project, also under the same key (A.6)."""
    one, clock = make()
    other = Identities("other", session_key=KEY, clock=clock)
    fields = bearer(one.mint_session("u_42").encode())
    assert one.of(fields) == USER
    assert other.of(fields) == NOBODY
    assert other.of(bearer(PAT.encode())) == NOBODY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user:u_42", USER),
        ("developer:d_1", Identity(developer_id="d_1")),
        ("anonymous", NOBODY),
        ("user:a:b", Identity(user_id="a:b")),
    ],
)
def test_personas(text: str, expected: Identity) -> None:
    """The three forms of `--as`, read and written alike (issue 2, item 4)."""
    assert parse_persona(text) == expected
    assert expected.text == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "user", "user:", "developer:", "nobody", "User:u", "anonymous:x", "user:a b"),
        *("user:é", "user:" + "u" * 513, "user:a\nb", "x" * 9999),
        *("usher:u", "zebra:u", "admin:u", "developers:d", "a:d", ":u", "aaa", "anonymouse", "z"),
    ],
)
def test_what_is_no_persona(text: str) -> None:
    """A persona that could not be stamped is refused when it is given, and told how."""
    with pytest.raises(UserError) as caught:
        parse_persona(text)
    assert caught.value.code is UserCode.INVALID_PERSONA
    assert len(caught.value.message) < 300


def test_ids_that_cannot_be_stamped_get_no_token() -> None:
    """Minting checks the id, so that no valid token names a user that cannot be signed (B6)."""
    identities, _ = make()
    with pytest.raises(UserError):
        identities.mint_session("u\n42")
    with pytest.raises(UserError):
        identities.add_pat(PAT, "d 1")


def test_older_session_keys_still_verify_and_the_newest_signs() -> None:
    """Until they are taken away; then at once, whatever was remembered."""
    identities, _ = make()
    old = bearer(identities.mint_session("u_42").encode())
    identities.set_session_keys((b"n" * 32, KEY))
    assert identities.of(old) == USER
    new = bearer(identities.mint_session("u_42").encode())
    assert identities.of(new) == USER
    assert identities.of(bearer(token(b"x" * 32))) == NOBODY
    identities.set_session_keys((b"n" * 32,))
    assert identities.of(old) == NOBODY
    assert identities.of(new) == USER
    with pytest.raises(ValueError, match="at least one"):
        identities.set_session_keys(())


def test_a_revoked_pat_is_nobodys_at_once() -> None:
    """However often it was seen before."""
    identities, _ = make()
    assert identities.of(bearer(PAT.encode())) == Identity(developer_id="d_1")
    identities.set_pats({})
    assert identities.of(bearer(PAT.encode())) == NOBODY
    identities.add_pat(PAT, "d_2")
    assert identities.of(bearer(PAT.encode())) == Identity(developer_id="d_2")


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        ([], USER),
        ([(b"user-agent", b"curl")], USER),
        ([(b"origin", b"http://localhost:3000")], USER),
        ([(b"sec-fetch-site", b"same-origin")], USER),
        ([(b"sec-fetch-site", b"none")], USER),
        ([(b"origin", b"https://app.example"), (b"sec-fetch-site", b"cross-site")], USER),
        ([(b"origin", b"https://evil.example")], NOBODY),
        ([(b"origin", b"null")], NOBODY),
        ([(b"sec-fetch-site", b"cross-site")], NOBODY),
    ],
)
def test_a_page_of_another_site_is_never_the_persona(
    fields: list[tuple[bytes, bytes]], who: Identity
) -> None:
    """`--as` speaks for programs and for pages of this machine alone, and for those that were
    allowed (T10).
    """
    identities = Identities(
        PROJECT,
        session_key=KEY,
        clock=ManualClock(),
        persona=USER,
        pages=Pages(["https://app.example"]),
    )
    assert identities.of(fields) == who


def test_a_credential_counts_wherever_a_page_is_from() -> None:
    """A page that holds a session token is that user, as on the platform (A.6)."""
    identities, _ = make(persona=Identity(developer_id="d_9"))
    fields = [(b"origin", b"https://evil.example"), (b"sec-fetch-site", b"cross-site")]
    assert identities.of([*fields, (b"authorization", b"Bearer " + token())]) == USER


class Counted(Mapping[bytes, str]):
    """Personal access tokens that all belong to one developer, and how often they were asked."""

    def __init__(self, own: Mapping[bytes, str]) -> None:
        self._own = own
        self.asked = 0

    def __getitem__(self, key: bytes) -> str:
        self.asked += 1
        return self._own[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def test_as_many_tokens_are_remembered_as_the_limit_says() -> None:
    """Each is verified once while there is room, and again when there was none (T2, limits)."""
    identities, _ = make()
    pats = Counted({hashlib.sha256(PAT.encode()).digest(): "d_1"})
    identities.set_pats(pats)
    most = limits.TOKEN_CACHE.value
    spelled = [[(b"authorization", b"Bearer %b%b" % (b" " * n, PAT.encode()))] for n in range(most)]
    for fields in (*spelled, *spelled):
        assert identities.of(fields) == Identity(developer_id="d_1")
    assert pats.asked == most
    identities.of([(b"authorization", b"bearer " + PAT.encode())])  # one more makes room
    identities.of(spelled[0])
    assert pats.asked == most + 2


def test_a_wrong_credential_is_verified_each_time() -> None:
    """What is nobody's fills no memory, and is somebody's once it is made known (H-4)."""
    identities, _ = make()
    pats = Counted({})
    identities.set_pats(pats)
    for asked in (1, 2, 3):
        assert identities.of(bearer(PAT.encode())) == NOBODY
        assert pats.asked == asked


def test_an_identity_is_written_as_a_persona() -> None:
    """Of the three, exactly the one it is (A.6)."""
    assert Identity(user_id="u").text == "user:u"
    assert Identity(developer_id="d").text == "developer:d"
    assert Identity().text == "anonymous"


@pytest.mark.parametrize("late_s", [0.0, 0.5, 1.0, 60.0, 86400.0])
def test_a_remembered_session_never_outlives_its_expiry(late_s: float) -> None:
    """However long nobody asked (A.6)."""
    identities, clock = make()
    fields = bearer(token(exp=NOW + 60))
    assert identities.of(fields) == USER
    clock.jump(60 + late_s)
    assert identities.of(fields) == NOBODY


@pytest.mark.parametrize("years", [-40, 40])
def test_only_our_own_clock_judges_a_session(years: int) -> None:
    """A token is good by the clock that made it, whatever another clock of the machine says
    (A.6, H-27).
    """
    identities, clock = make()
    clock.jump(years * 365 * 86400)
    assert identities.of(bearer(identities.mint_session("u_42").encode())) == USER


def test_a_refresh_token_is_no_session_token() -> None:
    """Signed by us and of this project, but with `sid` (A.6): nobody."""
    identities, _ = make()
    first, second = (
        identities.mint_refresh("u_42", anonymous_id=None, session_id="s_1") for _ in range(2)
    )
    assert first != second  # two of one second, too
    assert identities.of(bearer(first.encode())) == NOBODY
    assert identities.of(bearer(token(sid="s_1"))) == NOBODY
