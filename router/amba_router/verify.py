"""Why a dispatch signature holds or does not: every rule of A.3 to A.5, told apart.

For people (`amba-run verify`), not for the data plane. Strict where FN's own check is lax: its
`parseInt` takes `1767225600x` for a timestamp, this does not (reliability.md row B5).
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

from . import headers as names
from .signing import REPLAY_WINDOW_S, Stamp, canonical_string, check_id, mac_hex

HeaderPairs = list[tuple[str, str]]
"""Header fields in the order they came; names in any case."""


class Rule(StrEnum):
    """The rules, in the order they are checked."""

    MISSING_HEADER = "MISSING_HEADER"
    DUPLICATE_HEADER = "DUPLICATE_HEADER"
    BAD_ID = "BAD_ID"
    BAD_TIMESTAMP = "BAD_TIMESTAMP"
    SKEW = "SKEW"
    BAD_SIGNATURE_FORM = "BAD_SIGNATURE_FORM"
    SIGNATURE_MISMATCH = "SIGNATURE_MISMATCH"
    PAIRS_DISAGREE = "PAIRS_DISAGREE"


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule: which header, what is wrong with it, what to do."""

    rule: Rule
    header: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one request.

    Attributes:
        faults: every broken rule, the first one first; empty when the signature holds.
        canonical: the string we signed, or None when a header it needs is missing or malformed.
        expected: the MAC we computed, or None likewise. Whoever holds the secret can compute it,
            so it may be shown to them; it is kept out of the repr, since for the length of the
            replay window it is good for forging this very stamp.
        got: the MAC the request carried, or None.
        skew_s: our time minus the stamp's in whole seconds (positive: the stamp is in the past).
    """

    faults: tuple[Fault, ...]
    canonical: str | None = field(default=None, repr=False)
    expected: str | None = field(default=None, repr=False)
    got: str | None = None
    skew_s: int | None = None

    @property
    def ok(self) -> bool:
        return not self.faults

    @property
    def rule(self) -> Rule | None:
        """The rule that broke first."""
        return self.faults[0].rule if self.faults else None


_IDENTITY = tuple(
    name.decode()
    for name in (
        names.PROJECT_ID,
        names.USER_ID,
        names.DEVELOPER_ID,
        names.REQUEST_ID,
        names.FUNCTION_NAME,
    )
)
_MAY_BE_EMPTY = frozenset({names.USER_ID.decode(), names.DEVELOPER_ID.decode()})
_PRIMARY = (names.TIMESTAMP.decode(), names.SIGNATURE.decode())
_EDGE = (names.EDGE_TIMESTAMP.decode(), names.EDGE_SIGNATURE.decode())

# ASCII digits only, no sign, no leading zero; sixteen reach past the year 300 million
_TIMESTAMP = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{64}\Z")


def explain(headers: Iterable[tuple[str, str]], secret: bytes, now_s: float) -> Verdict:
    """Check one dispatched request's headers and say which rules broke.

    Both spellings of the timestamp and signature are understood; one whole pair is enough, and
    two must agree. Every rule that can still be judged is judged: a stale request whose
    signature does not match either gets both faults.

    Args:
        headers: all header fields of the request; others than the nine are not looked at.
        secret: the UTF-8 bytes of `EDGE_HEADER_SIGNING_SECRET`.
        now_s: Unix seconds; the fraction is dropped, as the SDK does.

    Raises:
        UserError: INVALID_STAMP when the secret is empty.

    Source: contract A.3, A.4, A.5; 60 seconds either way are still good.
    """
    if not secret:
        raise UserError(
            UserCode.INVALID_STAMP,
            "the signing secret is empty, so nothing can be checked",
            hint="give --secret, or set EDGE_HEADER_SIGNING_SECRET",
        )
    return _Check(headers, secret, int(now_s)).run()


class _Check:
    """One request under check; `faults` grows in the order of the rules."""

    def __init__(self, headers: Iterable[tuple[str, str]], secret: bytes, now_s: int) -> None:
        self.secret = secret
        self.now_s = now_s
        self.faults: list[Fault] = []
        self.values: dict[str, list[str]] = {}
        self.near: set[str] = set()
        wanted = {*_IDENTITY, *_PRIMARY, *_EDGE}
        for name, value in headers:
            name = name.lower()
            if name in wanted:
                self.values.setdefault(name, []).append(value.strip(" \t"))
            else:
                self.near.add(name.strip().replace("_", "-"))

    def run(self) -> Verdict:
        timestamp_name, signature_name = self.pair()
        self.presence((*_IDENTITY, timestamp_name, signature_name))
        self.duplicates()
        ids = [self.identity(name) for name in _IDENTITY]
        timestamp_s = self.timestamp(timestamp_name)
        skew_s = None if timestamp_s is None else self.skew(timestamp_name, timestamp_s)
        got = self.one(signature_name)
        in_form = got is not None and self.form(signature_name, got)
        canonical = expected = None
        project, user, developer, request, function = ids
        if (
            timestamp_s is not None
            and project is not None
            and user is not None
            and developer is not None
            and request is not None
            and function is not None
        ):
            stamp = Stamp(project, user, developer, request, function, timestamp_s)
            canonical = canonical_string(stamp).decode()
            expected = mac_hex(self.secret, stamp)
            if in_form and got is not None:
                self.match(signature_name, got, expected)
        self.agreement()
        return Verdict(tuple(self.faults), canonical, expected, got, skew_s)

    def pair(self) -> tuple[str, str]:
        """The spelling to judge by: the primary one unless only the other is whole."""
        whole = [pair for pair in (_PRIMARY, _EDGE) if all(name in self.values for name in pair)]
        begun = [pair for pair in (_PRIMARY, _EDGE) if any(name in self.values for name in pair)]
        return [*whole, *begun, _PRIMARY][0]

    # --- the rules, in order ---

    def presence(self, needed: tuple[str, ...]) -> None:
        for name in needed:
            if name not in self.values:
                fix = "dispatch sends all seven, an absent identity as an empty value"
                if name in self.near:
                    fix = "one came with _ for -, or blanks in its name, which is another header"
                elif name in _PRIMARY:
                    other = _EDGE[_PRIMARY.index(name)]
                    fix = f"send it, or the pair under the names of the old SDK ({other})"
                self.fault(Rule.MISSING_HEADER, name, "the header is missing", fix)

    def duplicates(self) -> None:
        for name, values in self.values.items():
            if len(values) > 1:
                self.fault(
                    Rule.DUPLICATE_HEADER,
                    name,
                    f"the header came {len(values)} times",
                    "dispatch sends it once: something on the way, or the caller, added one",
                )

    def identity(self, name: str) -> str | None:
        value = self.one(name)
        if value is None:
            return None
        if not value and name not in _MAY_BE_EMPTY:
            self.fault(
                Rule.BAD_ID, name, "the value is empty", "only the two identities may be empty"
            )
            return value
        try:
            return check_id(name, value)
        except UserError as error:
            self.fault(Rule.BAD_ID, name, error.message, "take the value as dispatch sent it")
            return None

    def timestamp(self, name: str) -> int | None:
        value = self.one(name)
        if value is None:
            return None
        if _TIMESTAMP.match(value) is None:
            self.fault(
                Rule.BAD_TIMESTAMP,
                name,
                f"{value[:40]!r} is not a plain decimal number of seconds",
                "Unix seconds in digits alone: no sign, no point, no leading zero",
            )
            return None
        return int(value)

    def skew(self, name: str, timestamp_s: int) -> int:
        skew_s = self.now_s - timestamp_s
        if abs(skew_s) > REPLAY_WINDOW_S:
            where = "in the past" if skew_s > 0 else "in the future"
            fix = "capture a fresh request, or check the clocks of both machines"
            if timestamp_s > 100_000_000_000:
                fix = "the number looks like milliseconds: it has to be seconds"
            self.fault(
                Rule.SKEW,
                name,
                f"the stamp is {abs(skew_s)} s {where}, {REPLAY_WINDOW_S} s are allowed",
                fix,
            )
        return skew_s

    def form(self, name: str, got: str) -> bool:
        if _MAC.match(got) is not None:
            return True
        message = "the signature is not hexadecimal"
        if re.fullmatch(r"[0-9A-Fa-f]*", got) is not None:
            message = f"the signature has {len(got)} hex digits, not 64"
            if len(got) == 64:
                message = "the signature is in upper case"
        fix = "HMAC-SHA256 as 64 lower-case hex digits, without a prefix"
        self.fault(Rule.BAD_SIGNATURE_FORM, name, message, fix)
        return False

    def match(self, name: str, got: str, expected: str) -> None:
        if not hmac.compare_digest(got.encode(), expected.encode()):
            self.fault(
                Rule.SIGNATURE_MISMATCH,
                name,
                "the signature is not the one we compute over these headers",
                "compare the canonical string with yours; if it is the same, the secret is not "
                "(its UTF-8 bytes are the key: no hex or base64 decoding, no line end)",
            )

    def agreement(self) -> None:
        fix = "dispatch sends the same timestamp and signature under both names"
        for primary, edge in zip(_PRIMARY, _EDGE, strict=True):
            one, other = self.one(primary), self.one(edge)
            if one is None or other is None:
                continue
            if not hmac.compare_digest(_raw(one), _raw(other)):
                message = f"the value differs from that of {primary}"
                self.fault(Rule.PAIRS_DISAGREE, edge, message, fix)
        for pair, whole in ((_PRIMARY, _EDGE), (_EDGE, _PRIMARY)):
            absent = [name for name in pair if name not in self.values]
            if len(absent) == 1 and all(name in self.values for name in whole):
                message = "the header is missing though the other half of its pair is there"
                self.fault(Rule.PAIRS_DISAGREE, absent[0], message, fix)

    # --- helpers ---

    def one(self, name: str) -> str | None:
        """The value of a header that came once; the first of several; None when absent."""
        values = self.values.get(name)
        return values[0] if values else None

    def fault(self, rule: Rule, header: str, message: str, fix: str) -> None:
        self.faults.append(Fault(rule, header, message, fix))


def _raw(value: str) -> bytes:
    # JSON can spell what UTF-8 cannot
    return value.encode("utf-8", "surrogatepass")


# --- reading what a person pastes ---

_REQUEST_LINE = re.compile(r"[!-~]+ [!-~]+ HTTP/[0-9](?:\.[0-9])?\Z")
_STATUS_LINE = re.compile(r"HTTP/[0-9](?:\.[0-9])? [0-9]{3}(?: .*)?\Z")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


def parse_headers(text: str) -> HeaderPairs:
    """Read header fields from JSON or raw HTTP text.

    Taken: a JSON object (a value may be an array, for a header that came more than once), a JSON
    array of `[name, value]` pairs, a JSON object that holds either under `headers`, or the head
    of an HTTP request, with or without its first line, up to the first empty line.
    Keys that a JSON object repeats are kept, as duplicates.

    Raises:
        UserError: INVALID_STAMP, saying where the text stops making sense.
    """
    if len(text) > limits.VERIFY_TEXT_BYTES.value:
        raise _unreadable(f"the input is longer than {limits.VERIFY_TEXT_BYTES.value} characters")
    text = text.removeprefix("\ufeff").strip("\r\n")
    if not text.strip():
        raise _unreadable("the input is empty")
    pairs = _from_json(text) if text.lstrip()[0] in "[{" else _from_http(text)
    if not pairs:
        raise _unreadable("the input holds no headers")
    return pairs


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object as its members in order, repeated keys included."""

    members: list[tuple[str, object]]


def _from_json(text: str) -> HeaderPairs:
    try:
        value: object = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _unreadable(f"the input is not valid JSON: {error.msg} ({place})") from error
    except (RecursionError, ValueError) as error:
        raise _unreadable("the input is JSON that no header could be in") from error
    if isinstance(value, _Object):
        for key, inner in value.members:
            if key == "headers" and isinstance(inner, (_Object, list)):
                value = cast("_Object | list[object]", inner)
                break
    if isinstance(value, _Object):
        return [pair for name, member in value.members for pair in _spread(name, member)]
    return [_pair(member, n) for n, member in enumerate(cast(list[object], value), 1)]


def _spread(name: str, value: object) -> HeaderPairs:
    """One member of an object: a string, or an array of them for a header that came often."""
    values = cast(list[object], value) if isinstance(value, list) else [value]
    return [(name, _text(name, one)) for one in values]


def _pair(member: object, number: int) -> tuple[str, str]:
    parts = cast(list[object], member) if isinstance(member, list) else []
    if len(parts) != 2 or not isinstance(parts[0], str):
        raise _unreadable(f"item {number} is not a [name, value] pair")
    return parts[0], _text(parts[0], parts[1])


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _unreadable(f"the value of {name[:80]!r} is not a string; put it in quotes")
    return value


def _from_http(text: str) -> HeaderPairs:
    pairs: HeaderPairs = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line:
            break
        if number == 1 and (_REQUEST_LINE.match(line) or _STATUS_LINE.match(line)):
            continue
        if line[0] in " \t":
            raise _unreadable(f"line {number} is folded; write each header on one line")
        name, colon, value = line.partition(":")
        if not colon or _TOKEN.match(name) is None:
            raise _unreadable(f"line {number} is not a header (Name: value)")
        pairs.append((name, value.strip(" \t")))
    return pairs


def _unreadable(message: str) -> UserError:
    return UserError(
        UserCode.INVALID_STAMP,
        message,
        hint='give the headers as {"name": "value"}, [["name", "value"]], or Name: value lines',
    )
