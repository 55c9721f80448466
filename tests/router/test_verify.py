"""Explaining signatures: each rule of contract A.3 to A.5 broken alone, and read from each form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amba_router import headers as names
from amba_router.signing import Stamp, mac_hex
from amba_router.verify import HeaderPairs, Rule, Verdict, explain, parse_headers
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

SECRET = b"whsec_test_0123456789abcdef"
NOW = 1767225600
MAC = "260ed1022015e7d721c1f86c7a06c8b1ef38a14ef9bf9c57da23bf52499723ac"
CANONICAL = (
    "v1\n11111111-2222-4333-8444-555555555555\nu_42\n\n"
    "01890a5d-ac96-774b-bcce-b302099a8057\nhello-world\n1767225600"
)
TS, SIG = names.TIMESTAMP.decode(), names.SIGNATURE.decode()
EDGE_TS, EDGE_SIG = names.EDGE_TIMESTAMP.decode(), names.EDGE_SIGNATURE.decode()
IDS = {
    names.PROJECT_ID.decode(): "11111111-2222-4333-8444-555555555555",
    names.USER_ID.decode(): "u_42",
    names.DEVELOPER_ID.decode(): "",
    names.REQUEST_ID.decode(): "01890a5d-ac96-774b-bcce-b302099a8057",
    names.FUNCTION_NAME.decode(): "hello-world",
}
PRIMARY = {**IDS, TS: str(NOW), SIG: MAC}
EDGE = {**IDS, EDGE_TS: str(NOW), EDGE_SIG: MAC}
BOTH = {**PRIMARY, **EDGE}


def check(headers: dict[str, str] | HeaderPairs, now_s: float = NOW) -> Verdict:
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    return explain(pairs, SECRET, now_s)


def resigned(timestamp: str) -> dict[str, str]:
    project, user, developer, request, function = IDS.values()
    stamp = Stamp(project, user, developer, request, function, int(timestamp))
    return {**IDS, TS: timestamp, SIG: mac_hex(SECRET, stamp)}


@pytest.mark.parametrize("headers", [PRIMARY, EDGE, BOTH], ids=["primary", "edge", "both"])
def test_golden_vector_holds_in_every_spelling(headers: dict[str, str]) -> None:
    """The published vector verifies under either header pair and under both (J, A.3)."""
    verdict = check(headers)
    assert verdict == Verdict((), CANONICAL, MAC, MAC, 0)
    assert verdict.ok
    assert verdict.rule is None


def test_every_golden_vector(golden: list[dict[str, str]]) -> None:
    """The shared vectors verify; an id that is not visible ASCII is refused by name (J, B6)."""
    seen = 0
    for vector in golden:
        stamped = {name: vector[key] for name, key in zip(IDS, _KEYS, strict=True)}
        stamped[TS] = str(vector["timestamp"])
        stamped[SIG] = vector["hmac_sha256_hex"]
        verdict = explain(stamped.items(), vector["secret"].encode(), float(vector["timestamp"]))
        if vector["user_id"].isascii():
            assert (verdict.faults, verdict.canonical) == ((), vector["canonical"])
            seen += 1
        else:
            assert verdict.rule is Rule.BAD_ID
    assert seen == 4


_KEYS = ("project_id", "user_id", "developer_id", "request_id", "function_name")


@pytest.fixture(name="golden")
def _golden() -> list[dict[str, str]]:  # pyright: ignore[reportUnusedFunction] pytest finds it
    # the vectors as published; copied here in short so that a checkout needs no other folder
    secret = SECRET.decode()
    base = {
        "secret": secret,
        "project_id": IDS[names.PROJECT_ID.decode()],
        "user_id": "",
        "developer_id": "",
        "request_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "function_name": "hello-world",
        "timestamp": "1767225600",
    }
    rows: list[tuple[dict[str, str], str]] = [
        ({"user_id": "u_42"}, MAC),
        ({}, "7b44a558da793fbbd6e26d1c812bba9762312a79ebfdd09b328b03e0a1f4667d"),
        (
            {"developer_id": "d_7", "request_id": "01890a5d-ac96-774b-bcce-b302099a8058"},
            "ad2d1e31da01fdba0e97231f8d395ebd28661a94e406d69e690dbbdd8fad5206",
        ),
        (
            {
                "secret": "clé-secrète-🔑",
                "project_id": "p",
                "user_id": "пользователь",
                "request_id": "r",
                "function_name": "f_1",
                "timestamp": "0",
            },
            "c71ad02654529024bf97cd137da0b5a186a6e6b2021846b7a4ed33d3c243cc88",
        ),
        (
            {
                "secret": "k" * 64,
                "project_id": "p" * 36,
                "user_id": "u" * 128,
                "request_id": "r" * 36,
                "function_name": "f" + "a" * 57,
                "timestamp": "4102444800",
            },
            "1a3c820ba9a0647470b56a6c6b2c7cd9d3223afc96697093fbb0198471776cd2",
        ),
    ]
    vectors: list[dict[str, str]] = []
    for changes, mac in rows:
        vector = {**base, **changes, "hmac_sha256_hex": mac}
        vector["canonical"] = "\n".join(["v1", *(vector[k] for k in _KEYS), vector["timestamp"]])
        vectors.append(vector)
    return vectors


@pytest.mark.parametrize("skew", [-61, -60, -59, 0, 59, 60, 61])
def test_replay_window_is_sixty_seconds_inclusive(skew: int) -> None:
    """60 s either way are good, 61 are not, and the MAC is judged all the same (A.5, B5)."""
    verdict = check(PRIMARY, NOW + skew)
    assert verdict.skew_s == skew
    assert [fault.rule for fault in verdict.faults] == ([Rule.SKEW] if abs(skew) > 60 else [])


def test_fraction_of_our_second_is_dropped() -> None:
    """60.9 s late is 60 whole seconds, as the SDK counts (A.5)."""
    assert check(PRIMARY, NOW + 60.9).ok


def test_milliseconds_are_recognised() -> None:
    """A timestamp in milliseconds gets the fix it needs, though correctly signed (A.3)."""
    verdict = check(resigned(str(NOW * 1000)))
    assert verdict.rule is Rule.SKEW
    assert "milliseconds" in verdict.faults[0].fix


@pytest.mark.parametrize(
    "timestamp",
    [
        f"{NOW}x",
        "1e9",
        "-1",
        "+1",
        "٣",
        "",
        "01",
        "1.0",
        "1_0",
        "0x10",
        "9" * 17,
        "1 7",
        "1\n",
        "⁷",
    ],
)
def test_timestamp_is_strictly_decimal(timestamp: str) -> None:
    """What `parseInt` would take and a plain decimal number is not, breaks the rule (B5)."""
    verdict = check({**PRIMARY, TS: timestamp})
    assert [fault.rule for fault in verdict.faults] == [Rule.BAD_TIMESTAMP]
    assert verdict.faults[0].header == TS
    assert (verdict.canonical, verdict.expected, verdict.skew_s) == (None, None, None)


def test_timestamp_of_two_to_the_53_is_far_in_the_future() -> None:
    """A huge timestamp is a number, and outside the window (B5)."""
    assert check(resigned(str(2**53))).rule is Rule.SKEW


def test_blanks_around_a_value_are_no_part_of_it() -> None:
    """Optional white space around a field value is dropped, as HTTP has it (RFC 9110 5.5)."""
    assert check({**PRIMARY, TS: f" {NOW}\t"}).ok


@pytest.mark.parametrize("name", [*IDS, TS, SIG])
def test_missing_header_is_named(name: str) -> None:
    """Each of the seven is needed, an empty identity too (A.3)."""
    headers = {n: v for n, v in PRIMARY.items() if n != name}
    verdict = check(headers)
    assert (verdict.rule, verdict.faults[0].header) == (Rule.MISSING_HEADER, name)
    assert verdict.expected is None or name == SIG


def test_nothing_at_all_names_all_seven() -> None:
    """Without any header all seven are told, in the primary spelling (A.3)."""
    assert [fault.header for fault in check([]).faults] == [*IDS, TS, SIG]


def test_half_a_pair_names_the_other_half() -> None:
    """One half of the old SDK's pair asks for its other half, not for the primary pair (A.3)."""
    headers = {**IDS, EDGE_TS: str(NOW)}
    assert [fault.header for fault in check(headers).faults] == [EDGE_SIG]


def test_underscore_spelling_is_another_header() -> None:
    """`x_amba_user_id` does not count, and the fault says why (B1)."""
    headers = {n: v for n, v in PRIMARY.items() if n != "x-amba-user-id"}
    verdict = check({**headers, "X_Amba_User_Id": "u_42"})
    assert verdict.rule is Rule.MISSING_HEADER
    assert "_" in verdict.faults[0].fix


@pytest.mark.parametrize("name", list(BOTH))
@pytest.mark.parametrize("other", ["the same", "forged"])
def test_duplicate_header_is_named(name: str, other: str) -> None:
    """A second copy breaks the rule whatever it holds, before or behind, in any case (B1)."""
    extra = (name.title(), BOTH[name] if other == "the same" else "x")
    for pairs in ([*BOTH.items(), extra], [extra, *BOTH.items()]):
        verdict = check(pairs)
        assert (verdict.rule, verdict.faults[0].header) == (Rule.DUPLICATE_HEADER, name)


@pytest.mark.parametrize(
    ("mac", "says"),
    [
        (MAC.upper(), "upper case"),
        (MAC[:-1], "63 hex digits"),
        (MAC + "0", "65 hex digits"),
        ("", "0 hex digits"),
        ("g" * 64, "not hexadecimal"),
        ("sha256=" + MAC, "not hexadecimal"),
        ("é" * 64, "not hexadecimal"),
    ],
)
def test_form_of_the_signature(mac: str, says: str) -> None:
    """A MAC that is not 64 lower-case hex digits is told by its form, not as a mismatch (A.4)."""
    verdict = check({**PRIMARY, SIG: mac})
    assert [fault.rule for fault in verdict.faults] == [Rule.BAD_SIGNATURE_FORM]
    assert says in verdict.faults[0].message
    assert (verdict.got, verdict.expected) == (mac, MAC)


@pytest.mark.parametrize("name", [*IDS, TS])
def test_one_changed_field_is_a_mismatch(name: str) -> None:
    """Each signed field is covered: changing one breaks the MAC (J check 2, B4)."""
    changed = str(NOW + 1) if name == TS else IDS[name] + "x"
    verdict = check({**PRIMARY, name: changed})
    assert [fault.rule for fault in verdict.faults] == [Rule.SIGNATURE_MISMATCH]
    assert verdict.expected != MAC
    assert verdict.canonical is not None
    assert changed in verdict.canonical


def test_no_flipped_bit_verifies() -> None:
    """Every bit of every field and of the MAC is covered (B4)."""
    tried = 0
    for name, value in PRIMARY.items():
        for at, char in enumerate(value):
            for bit in range(7):
                flipped = value[:at] + chr(ord(char) ^ (1 << bit)) + value[at + 1 :]
                assert not check({**PRIMARY, name: flipped}).ok, (name, flipped)
                tried += 1
    assert tried > 1000


def test_another_secret_does_not_verify() -> None:
    """A stamp of one project is worth nothing under another's secret (B7)."""
    assert explain(BOTH.items(), b"another", NOW).rule is Rule.SIGNATURE_MISMATCH


@pytest.mark.parametrize("value", ["a\nb", "a b", "é", "a\0", "x" * 513])
def test_id_that_could_not_be_signed(value: str) -> None:
    """An id that dispatch would have refused is told as such (B6)."""
    verdict = check({**PRIMARY, "x-amba-user-id": value})
    assert (verdict.rule, verdict.canonical) == (Rule.BAD_ID, None)


@pytest.mark.parametrize("name", [n for n in IDS if n != "x-amba-user-id"])
def test_only_the_identities_may_be_empty(name: str) -> None:
    """An empty developer is nobody; an empty project, request or function is wrong (A.4)."""
    verdict = check({**PRIMARY, name: ""})
    assert verdict.ok == (name == "x-amba-developer-id")


@pytest.mark.parametrize(
    ("change", "header"),
    [({EDGE_SIG: "0" * 64}, EDGE_SIG), ({EDGE_TS: "1"}, EDGE_TS), ({EDGE_SIG: "\ud800"}, EDGE_SIG)],
)
def test_pairs_that_disagree(change: dict[str, str], header: str) -> None:
    """The primary pair holds, the other says something else: told last (A.3)."""
    verdict = check({**BOTH, **change})
    assert [(f.rule, f.header) for f in verdict.faults] == [(Rule.PAIRS_DISAGREE, header)]


@pytest.mark.parametrize("gone", [EDGE_TS, EDGE_SIG, TS, SIG])
def test_one_whole_pair_and_half_of_the_other(gone: str) -> None:
    """A good whole pair beside half a pair is not what dispatch sends (A.3)."""
    verdict = check({n: v for n, v in BOTH.items() if n != gone})
    assert [(f.rule, f.header) for f in verdict.faults] == [(Rule.PAIRS_DISAGREE, gone)]


def test_several_broken_rules_are_all_told_in_order() -> None:
    """A stale request with a wrong MAC and disagreeing pairs gets three faults (A.5)."""
    verdict = check({**BOTH, SIG: "0" * 64}, NOW + 100)
    rules = [fault.rule for fault in verdict.faults]
    assert rules == [Rule.SKEW, Rule.SIGNATURE_MISMATCH, Rule.PAIRS_DISAGREE]
    assert all(fault.fix for fault in verdict.faults)


def test_expected_mac_stays_out_of_the_repr() -> None:
    """A logged verdict cannot be used to forge the stamp it refused (M: secrets in logs)."""
    verdict = check({**PRIMARY, "x-amba-user-id": "u_43"})
    assert verdict.expected is not None
    assert verdict.expected not in repr(verdict)
    assert verdict.canonical is not None
    assert "u_43" not in repr(verdict)


def test_empty_secret_is_refused() -> None:
    """A MAC under an empty key would prove nothing (A.4)."""
    with pytest.raises(UserError) as caught:
        explain(BOTH.items(), b"", NOW)
    assert caught.value.code is UserCode.INVALID_STAMP
    assert "EDGE_HEADER_SIGNING_SECRET" in caught.value.hint


# --- reading ---

_HTTP = "\r\n".join(f"{name.title()}: {value}" for name, value in BOTH.items())


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(BOTH),
        json.dumps(list(BOTH.items()), indent=1),
        json.dumps({"method": "GET", "headers": BOTH}),
        json.dumps({"headers": list(BOTH.items())}),
        json.dumps({name: [value] for name, value in BOTH.items()}),
        "\ufeff\n" + json.dumps(BOTH),
        _HTTP,
        "\r\n" + _HTTP + "\r\n\r\nx-amba-user-id: in the body\r\n",
        _HTTP + "\r\n\r\nx-amba-user-id: in the body\r\n\r\nnot a header\r\n",
        "POST /hello?x=1 HTTP/1.1\r\n" + _HTTP + "\r\n\r\n",
        "HTTP/1.1 200 OK\n" + _HTTP.replace("\r\n", "\n"),
    ],
)
def test_every_form_is_read(text: str) -> None:
    """JSON object, JSON pairs and raw HTTP give the same headers (interface.md section 2)."""
    pairs = parse_headers(text)
    assert {name.lower(): value for name, value in pairs} == BOTH
    assert check(pairs).ok


@pytest.mark.parametrize(
    "text",
    [
        '{"x-amba-user-id": "a", "x-amba-user-id": "b"}',
        '{"x-amba-user-id": ["a", "b"]}',
        '[["x-amba-user-id", "a"], ["X-Amba-User-Id", "b"]]',
        "x-amba-user-id: a\nX-AMBA-USER-ID:b",
    ],
)
def test_duplicates_survive_reading(text: str) -> None:
    """No form hides a second copy of a header (B1)."""
    assert [value for _, value in parse_headers(text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("{}", "no headers"),
        ("[]", "no headers"),
        ("GET / HTTP/1.1\n\n", "no headers"),
        ('{"a": ', "line 1, column 7"),
        ('{"a": 1}', "'a' is not a string"),
        ('{"a": {"b": "c"}}', "'a' is not a string"),
        ('{"a": [1]}', "'a' is not a string"),
        ('[["a", "b", "c"]]', "item 1 is not a [name, value] pair"),
        ('[["a", "b"], "c"]', "item 2 is not a [name, value] pair"),
        ('[{"a": "b", "c": "d"}]', "item 1 is not a [name, value] pair"),
        ("[[1, 2]]", "item 1 is not a [name, value] pair"),
        ('[["a", 2]]', "'a' is not a string"),
        ("[" * 100_000, "no header could be in"),
        ("[" + "1" * 5000 + "]", "no header could be in"),
        ("a: b\n c", "line 2 is folded"),
        ("a: b\nno colon", "line 2 is not a header"),
        ("bad name: x", "line 1 is not a header"),
        ("name : x", "line 1 is not a header"),
        (":method: GET", "line 1 is not a header"),
        ("a: b\nGET / HTTP/1.1", "line 2 is not a header"),
        ("x" * (limits.VERIFY_TEXT_BYTES.value + 1), "longer than"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, says: str) -> None:
    """Input that is no header list gets a clear error with its place and the known forms."""
    with pytest.raises(UserError) as caught:
        parse_headers(text)
    assert says in caught.value.message
    assert caught.value.code is UserCode.INVALID_STAMP
    assert "Name: value" in caught.value.hint


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    """No input makes the reader fail in another way than a user error."""
    try:
        pairs = parse_headers(text)
    except UserError:
        return
    assert pairs
    assert not check(pairs).ok


def test_as_much_text_as_the_limit_says_is_read() -> None:
    """The bound itself is still good (limits)."""
    most = limits.VERIFY_TEXT_BYTES.value
    assert parse_headers("a: " + "x" * (most - 3)) == [("a", "x" * (most - 3))]


@pytest.mark.parametrize(
    ("skew", "says"), [(61, "61 s in the past"), (-61, "61 s in the future"), (7200, "in the past")]
)
def test_a_stale_stamp_says_which_way(skew: int, says: str) -> None:
    """The clock to look at follows from it (A.5)."""
    verdict = check(BOTH, NOW + skew)
    assert verdict.skew_s == skew
    assert [says in fault.message for fault in verdict.faults] == [True]


def test_only_what_looks_like_milliseconds_is_taken_for_them() -> None:
    """A stamp of next year gets advice on clocks, one of a thousand times the time on units."""
    seconds = check(BOTH | {TS: str(NOW + 10**9), EDGE_TS: str(NOW + 10**9)}).faults[0]
    milliseconds = check(BOTH | {TS: str(NOW * 1000), EDGE_TS: str(NOW * 1000)}).faults[0]
    assert (seconds.rule, milliseconds.rule) == (Rule.SKEW, Rule.SKEW)
    assert "clocks" in seconds.fix
    assert "milliseconds" in milliseconds.fix


def test_of_two_copies_the_first_is_judged() -> None:
    """A second copy is a fault of its own, and changes nothing that is said of the first (B1)."""
    forged = [*BOTH.items(), (SIG, "0" * 64), (TS, "1"), ("x-amba-user-id", "u_43")]
    verdict = check(forged)
    assert (verdict.got, verdict.canonical, verdict.skew_s) == (MAC, CANONICAL, 0)
    assert {fault.rule for fault in verdict.faults} == {Rule.DUPLICATE_HEADER}


def test_signatures_are_compared_where_a_timestamp_is_missing() -> None:
    """Half a pair hides no disagreement of the other half (A.3)."""
    headers = {**BOTH, EDGE_SIG: "0" * 64}
    del headers[EDGE_TS]
    disagree = [f.header for f in check(headers).faults if f.rule is Rule.PAIRS_DISAGREE]
    assert disagree == [EDGE_SIG, EDGE_TS]


def test_the_first_object_called_headers_is_read() -> None:
    """A second one is no way to show other headers than those that are judged (B1)."""
    text = '{"headers": {"a": "1"}, "headers": {"a": "2"}}'
    assert parse_headers(text) == [("a", "1")]
