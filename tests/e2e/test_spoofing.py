"""Thousands of forged identities against the real server and a real function: none gets through.

Must show 3. Each attempt is a whole request in raw bytes; what the function saw of it comes back
as its answer. Either it was refused, or the function saw exactly our nine headers, verified here
under the golden rule by code of this file's own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.raw_http import RawClient
from tests.run.serving import Dev

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
SEED = 20261122
ATTEMPTS = 5_400
BATCH = 30
EVIL = "evil"
IDS = (
    *("x-amba-project-id", "x-amba-user-id", "x-amba-developer-id"),
    *("x-amba-request-id", "x-amba-function-name"),
)
PAIRS = (
    ("x-amba-timestamp", "x-amba-signature"),
    ("x-amba-edge-timestamp", "x-amba-edge-signature"),
)
NINE = (*IDS, *PAIRS[0], *PAIRS[1])
OTHERS = (
    *("x-amba", "x-amba-", "x-amba-role", "x-amba-user-id-2", "x-amba-as-user", "x-ambassador"),
    *("x-amba-internal-token", "x-amba-edge", "x-amba-edge-user-id", "x-amba--user-id"),
)
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request. `refused` tells whether it must be."""

    kind: str
    raw: bytes
    refused: bool = False


class Forger:
    """Makes attempts, the same ones for the same seed."""

    def __init__(self, seed: int, host: str, stolen: dict[str, str]) -> None:
        self.rng = random.Random(seed)
        self.host = host
        self.stolen = stolen

    def spell(self, name: str) -> str:
        """A name in some case, with some underscores."""
        rng = self.rng
        style = rng.randrange(5)
        if style == 0:
            name = name.upper()
        elif style == 1:
            name = "-".join(part.capitalize() for part in name.split("-"))
        elif style == 2:
            name = "".join(c.upper() if rng.random() < 0.5 else c for c in name)
        if rng.random() < 0.5:
            every = rng.random() < 0.5
            name = "".join("_" if c == "-" and (every or rng.random() < 0.5) else c for c in name)
        return name

    def value(self) -> bytes:
        """What somebody would want us to believe, in some encoding."""
        rng = self.rng
        text = f"{EVIL}-{rng.randrange(10**9)}"
        pad = rng.choice(["", " ", "\t", " \t  "])
        return rng.choice(
            [
                text.encode(),
                b"",
                f"{text}, {text}".encode(),
                f'"{text}"'.encode(),
                f"{text};q=1,,".encode(),
                "".join(f"%{c:02x}" for c in text.encode()).encode(),
                base64.b64encode(text.encode()),
                f"=?utf-8?q?{text}?=".encode(),
                f"{text}é🔑".encode(),
                f"{text}é".encode("latin-1"),
                f"{text}\\n\\r\\0".encode(),
                text.encode() * 60,
                hashlib.sha256(text.encode()).hexdigest().encode(),
                str(int(time.time())).encode(),
                b"u_42",
            ]
        ).join([pad.encode(), pad.encode()])

    def field(self, name: str | None = None) -> bytes:
        """One forged header line."""
        name = name or self.rng.choice((*NINE, *NINE, *OTHERS))
        return self.spell(name).encode() + b":" + self.value()

    def fields(self, most: int = 4) -> list[bytes]:
        return [self.field() for _ in range(self.rng.randrange(1, most + 1))]

    def request(
        self,
        *fields: bytes,
        method: bytes = b"GET",
        target: bytes = b"/echo-headers/x",
        body: bytes = b"",
    ) -> bytes:
        """A request, Host somewhere among its headers."""
        lines = list(fields)
        lines.insert(self.rng.randrange(len(lines) + 1), b"Host: " + self.host.encode())
        return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), *lines, b"", body])

    # kinds that are accepted, and cleaned

    def plain(self) -> bytes:
        return self.request(*self.fields())

    def duplicates(self) -> bytes:
        name = self.rng.choice(NINE)
        return self.request(*[self.field(name) for _ in range(self.rng.randrange(2, 9))])

    def all_nine(self) -> bytes:
        return self.request(*[self.field(name) for name in NINE])

    def replay(self) -> bytes:
        return self.request(*[f"{self.spell(n)}: {v}".encode() for n, v in self.stolen.items()])

    def nominated(self) -> bytes:
        """`Connection` names our headers, so that a sloppy proxy would drop its own."""
        names = ", ".join(self.spell(n) for n in self.rng.sample(NINE, 3))
        extra = self.rng.choice(["keep-alive, ", "", "x-other, "])
        return self.request(b"Connection: " + (extra + names).encode(), *self.fields(2))

    def trailers(self) -> bytes:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (b"a", b"bcd", b"e" * 20))
        end = (
            b"0\r\n"
            + b"".join(line + b"\r\n" for line in (*self.fields(), b"Host: evil"))
            + b"\r\n"
        )
        names = ", ".join(self.rng.sample(NINE, 2)).encode()
        head = (b"Transfer-Encoding: chunked", b"Trailer: " + names, *self.fields(2))
        return self.request(*head, method=b"POST", body=chunks + end)

    def body(self) -> bytes:
        """A body that looks like headers, and like another request."""
        text = b"\r\n".join([b"", *self.fields(), b"", b"GET /evil HTTP/1.1", b"", b""])
        length = b"Content-Length: %d" % len(text)
        return self.request(length, *self.fields(), method=b"POST", body=text)

    def absolute(self) -> bytes:
        target = b"http://" + self.host.encode() + b"/echo-headers/x"
        return self.request(*self.fields(), target=target)

    def in_the_address(self) -> bytes:
        query = b"&".join(n.encode() + b"=" + EVIL.encode() for n in self.rng.sample(NINE, 3))
        return self.request(*self.fields(1), target=b"/echo-headers/x?" + query)

    def credentials(self) -> bytes:
        """A credential that is none: an unsigned token, a made-up one, another scheme."""

        def part(value: object) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        claims = {"sub": EVIL, "pid": self.stolen["x-amba-project-id"], "exp": 2**33}
        mac = base64.urlsafe_b64encode(self.rng.randbytes(32)).decode().rstrip("=")
        token = self.rng.choice(
            [
                f"{part({'alg': 'none'})}.{part(claims)}.",
                f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{mac}",
                f"{part({'alg': 'RS256'})}.{part(claims)}.{mac}",
                "amb_dpat_" + "".join(self.rng.choices("abcXYZ019_-", k=32)),
                EVIL,
                "",
            ]
        )
        scheme = self.rng.choice(["Bearer", "bearer", "Basic", "Amba"])
        return self.request(f"Authorization: {scheme} {token}".encode(), *self.fields(1))

    def lookalikes(self) -> bytes:
        """Names that are nobody's: they pass, and must not become one of ours on the way."""
        name = self.rng.choice(
            [
                *("XAmba-User-Id", "X.Amba.User.Id", "X~Amba~User~Id", "Amba-User-Id"),
                *("HTTP_X_AMBA_USER_ID", "X-Forwarded-User", "Remote-User", "X--Amba-User-Id"),
            ]
        )
        return self.request(name.encode() + b": " + EVIL.encode(), *self.fields(2))

    def address(self) -> bytes:
        names = [b"CF-Connecting-IP", b"cf-connecting-ip", b"CF-CONNECTING-IP"]
        return self.request(*[name + b": 6.6.6.6" for name in names], *self.fields(2))

    # kinds that are refused

    def bad_byte(self) -> bytes:
        """A control, or a byte that is no token character, somewhere in one of our names."""
        name = self.spell(self.rng.choice(NINE)).encode()
        odd = self.rng.choice(
            [
                *(
                    b"\0",
                    b"\x01",
                    b"\x0b",
                    b"\x0c",
                    b"\x7f",
                    b"\xa0",
                    b"\xad",
                    b"\xff",
                    b" ",
                    b"\t",
                ),
                *(b"(", b"/", b'"', b"[", b"\\", b"@", b"{", b","),
                *("‐".encode(), "\u200b".encode(), "ｘ".encode()),
            ]
        )
        at = self.rng.randrange(len(name) + 1)
        return self.request(name[:at] + odd + name[at:] + b": " + EVIL.encode())

    def bad_value(self) -> bytes:
        odd = self.rng.choice([b"\0", b"\x01", b"\x08", b"\x0b", b"\x1b", b"\x7f"])
        return self.request(self.field() + odd + EVIL.encode())

    def bad_line(self) -> bytes:
        """Line ends that only some readers take for line ends."""
        end = self.rng.choice([b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n ", b"\r\n\t"])
        return self.request(b"A: b" + end + self.field())

    def bad_framing(self) -> bytes:
        inner = self.request(*self.fields())
        head = self.rng.choice(
            [
                (b"Content-Length: 4", b"Transfer-Encoding: chunked"),
                (b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(inner)),
                (b"Content-Length: 0", b"Content-Length: %d" % len(inner)),
                (b"Transfer-Encoding: xchunked",),
                (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
                (b"Transfer-Encoding:\x0bchunked",),
            ]
        )
        return self.request(*head, method=b"POST", body=b"0\r\n\r\n" + inner)

    def bad_host(self) -> bytes:
        host = self.rng.choice(["evil", "127.0.0.1", self.host])
        return self.request(b"Host: " + host.encode(), *self.fields())

    def attempts(self) -> Iterator[Attempt]:
        """Every kind in turn; one in ten must be refused."""
        accepted = (
            *(self.plain, self.plain, self.plain, self.duplicates, self.all_nine, self.replay),
            *(self.nominated, self.trailers, self.body, self.absolute, self.in_the_address),
            *(self.credentials, self.lookalikes, self.address),
        )
        refused = (self.bad_byte, self.bad_value, self.bad_line, self.bad_framing, self.bad_host)
        for n in range(ATTEMPTS):
            if n % 10 == 9:
                make = refused[n // 10 % len(refused)]
                yield Attempt(make.__name__, make(), refused=True)
            else:
                make = accepted[n % len(accepted)]
                yield Attempt(make.__name__, make())


class Judge:
    """Holds what the function saw against the rule."""

    def __init__(self, project: str, secret: str, host: str) -> None:
        self.project = project
        self.secret = secret.encode()
        self.host = host
        self.ids: set[str] = set()

    def check(self, attempt: Attempt, seen: dict[str, str]) -> None:
        """AssertionError when anything of ours is not exactly ours."""
        ours = {n for n in seen if n.strip().lower().replace("_", "-").startswith("x-amba")}
        assert ours == set(NINE), (attempt, ours)
        said = {name: seen[name] for name in NINE}
        assert EVIL not in json.dumps(said), (attempt, said)
        assert said["x-amba-project-id"] == self.project
        assert said["x-amba-user-id"] == said["x-amba-developer-id"] == ""
        assert said["x-amba-function-name"] == "echo-headers"
        id_ = said["x-amba-request-id"]
        assert UUID7.match(id_)
        assert id_ not in self.ids
        self.ids.add(id_)
        for timestamp, signature in PAIRS:
            assert abs(time.time() - int(said[timestamp])) <= 60
            lines = ["v1", *[said[name] for name in IDS[:4]], said[IDS[4]], said[timestamp]]
            mac = hmac.new(self.secret, "\n".join(lines).encode(), hashlib.sha256)
            assert mac.hexdigest() == said[signature], attempt
        assert seen["cf-connecting-ip"] == "127.0.0.1", attempt
        assert seen["host"] == self.host, attempt


def fields_of(body: bytes) -> dict[str, str]:
    """What `echo-headers` saw, names as it saw them."""
    pairs: list[list[str]] = json.loads(body)["headers"]
    assert len({pair[0] for pair in pairs}) == len(pairs)
    return {pair[0]: pair[1] for pair in pairs}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("spoofing")
    shutil.copytree(TESTS.parent / "fixtures/echo-headers", folder / "echo-headers")
    shutil.copytree(TESTS / "guests/env-dump", folder / "env-dump")
    data_home = tmp_path_factory.mktemp("data")
    with Dev(folder, "--ephemeral", "--no-watch", data_home=data_home) as server:
        yield server
    assert server.process.returncode == 0
    assert not [line for line in server.talk if "Traceback" in line]


def test_no_forgery_reaches_a_function(dev: Dev, capsys: pytest.CaptureFixture[str]) -> None:
    """5,400 attempts: refused and closed, or cleaned and signed; 0 leaks (Must show 3; B1)."""
    host = f"local.fn.localhost:{dev.port}"
    env = json.loads(dev.ask("env-dump"))["values"]
    secret: str = env["EDGE_HEADER_SIGNING_SECRET"]
    stolen = {
        n: v for n, v in fields_of(dev.get("/echo-headers", host=host).body).items() if n in NINE
    }
    judge = Judge(dev.ready["project"]["id"], secret, host)
    clean: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    began = time.monotonic()
    batch: list[Attempt] = []
    with RawClient(dev.port) as client:

        def settle() -> None:
            client.send(b"".join(attempt.raw for attempt in batch))
            for attempt in batch:
                answer = client.answer()
                assert answer.status == 200, (attempt, answer)
                judge.check(attempt, fields_of(answer.body))
                clean[attempt.kind] += 1
            batch.clear()

        for attempt in Forger(SEED, host, stolen).attempts():
            if not attempt.refused:
                batch.append(attempt)
                if len(batch) == BATCH:
                    settle()
                continue
            with RawClient(dev.port) as other:
                other.send(attempt.raw)
                answer = other.answer()
                assert answer.status in (400, 501), (attempt, answer)
                assert json.loads(answer.body)["error"]["status"] == answer.status
                assert other.ended(), attempt
                refused[attempt.kind] += 1
        settle()
    took_s = time.monotonic() - began
    assert clean.total() + refused.total() == ATTEMPTS >= 5_000
    with capsys.disabled():
        print(
            f"\nspoofing (seed {SEED}): {ATTEMPTS} attempts in {took_s:.1f} s; "
            f"{clean.total()} answered and verified, {refused.total()} refused, 0 leaks"
        )
        print(f"  answered: {dict(clean)}\n  refused: {dict(refused)}")
    # the function was called for the answered ones alone
    assert len(judge.ids) == clean.total()
