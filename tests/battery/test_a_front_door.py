"""Group A: bytes on the front's port. Refused and closed, or exactly the calls they mean.

One server with a function that says what it sees, over TCP; `reference` reads what was sent.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import time
from collections.abc import Callable, Generator

import pytest
from tests.battery import reference, vectors
from tests.battery.conftest import Counts
from tests.battery.mirror import Answer, Mirror, Verdicts, answers, running
from tests.drills import slow
from tests.waiting import pause

from amba_runtime import limits

SETTINGS = """
[functions.mirror.limits]
request_body_mib = 1
"""
KIB, MIB = 1024, 1024 * 1024
CLOSE = b"Connection: close"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Generator[Mirror]:
    folder = tmp_path_factory.mktemp("front")
    with running(folder, "body-fate", "odd-answers", "streams", settings=SETTINGS) as server:
        yield server


def told(row: str, verdicts: Verdicts, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{row}: {dict(verdicts.counts)}, {len(verdicts.wrong)} wrong")
    verdicts.none_wrong()


def test_a1_framing(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    """A1: what two readers could understand differently is refused; 0 smuggled of 334 or more."""
    streams = [vectors.fill(v + vectors.SMUGGLED, mirror.host) for v in vectors.framing()]
    assert len(streams) >= 334
    verdicts = mirror.judge(streams)
    told("A1", verdicts, capsys)
    assert verdicts.counts["refused"] >= 200


def test_a2_transfer_encoding_grid(
    mirror: Mirror, counts: Counts, rng: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    """A2: one or two odd bytes around the framing, as CL.TE and as TE.CL: 0 smuggled."""
    grid = vectors.grid()
    assert len(grid) == 3536
    chosen = rng.sample(grid, counts(pr=268, nightly=len(grid)))
    told("A2", mirror.judge(vectors.fill(v, mirror.host) for v in chosen), capsys)


def test_a3_mutants(
    mirror: Mirror, counts: Counts, rng: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    """A3: mutants of 40 valid streams: 0 crashes, 0 5xx from parsing, 0 smuggled."""
    seeds = [vectors.fill(seed, mirror.host) for seed in vectors.seeds()]
    assert len(seeds) == 40
    many = counts(pr=20_000, nightly=1_000_000)
    told("A3", mirror.judge(vectors.mutant(seeds, rng) for _ in range(many)), capsys)


def test_a3_seeds_are_valid(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    """A3: unchanged, each of them is exactly its calls: the oracle is no wall that stops all."""
    streams = [vectors.fill(s + vectors.CLOSING, mirror.host) for s in vectors.seeds()]
    verdicts = mirror.judge(streams, whole=True)
    told("A3 seeds", verdicts, capsys)
    assert verdicts.counts == {"passed": 40}


def test_a4_split_points(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    """A4: 20 valid streams, cut at every byte into two writes, are what they were."""
    seeds = [s for s in vectors.seeds() if b"HTTP/1.0" not in s]
    chosen = [vectors.fill(s, mirror.host) for s in sorted(seeds, key=len)[-20:]]
    last = vectors.fill(vectors.CLOSING, mirror.host)
    cuts = [(s, at) for s in chosen for at in range(1, len(s))]
    assert len(cuts) >= 5000
    heard = mirror.talk_all([[s[:at], s[at:] + last] for s, at in cuts], shut=False, pause_s=0.001)
    verdicts = Verdicts()
    for (stream, _), answer in zip(cuts, heard, strict=True):
        verdicts.judge(stream + last, answer, whole=True)
    told("A4", verdicts, capsys)
    assert verdicts.counts == {"passed": len(cuts)}


# A5: what h1spec asks of a server, in cases of our own

_OK = range(200, 300)
_BAD = range(400, 500)
H1SPEC: dict[str, tuple[bytes, range]] = {
    "a GET": (vectors.get(b"/mirror/", CLOSE), _OK),
    "names in any case": (vectors.get(b"/mirror/", CLOSE).replace(b"Host", b"hOsT"), _OK),
    "an empty value": (vectors.get(b"/mirror/", b"X-Empty:", CLOSE), _OK),
    "no blank behind the colon": (vectors.get(b"/mirror/", b"X:y", CLOSE), _OK),
    "blanks around a value": (vectors.get(b"/mirror/", b"X: \t y \t ", CLOSE), _OK),
    "a header of 8 KiB": (vectors.get(b"/mirror/", b"X: " + b"y" * 8192, CLOSE), _OK),
    "a target of 8 KiB": (vectors.get(b"/mirror/" + b"y" * 8192, CLOSE), _OK),
    "absolute-form": (vectors.get(b"http://@/mirror/", CLOSE), _OK),
    "an empty line before": (b"\r\n" + vectors.get(b"/mirror/", CLOSE), _OK),
    "a body with a length": (vectors.post(b"Content-Length: 2", CLOSE, body=b"hi"), _OK),
    "an empty body": (vectors.post(b"Content-Length: 0", CLOSE), _OK),
    "a chunked body": (vectors.post(vectors.TE, CLOSE, body=b"2\r\nhi\r\n" + vectors.END), _OK),
    "an empty chunked body": (vectors.post(vectors.TE, CLOSE, body=vectors.END), _OK),
    "a chunk extension": (vectors.post(vectors.TE, CLOSE, body=b"1;a=b\r\nx\r\n0\r\n\r\n"), _OK),
    "a trailer": (vectors.post(vectors.TE, CLOSE, body=b"0\r\nX: y\r\n\r\n"), _OK),
    "HTTP/1.0": (vectors.get(b"/mirror/", version=b"1.0"), _OK),
    "no Host": (b"GET /mirror/ HTTP/1.1\r\n\r\n", _BAD),
    "two Hosts": (vectors.get(b"/mirror/", b"Host: @"), _BAD),
    "a bad character in a name": (vectors.get(b"/mirror/", b"X[]: y"), _BAD),
    "a control character in a name": (vectors.get(b"/mirror/", b"X\x01: y"), _BAD),
    "a control character in a value": (vectors.get(b"/mirror/", b"X: y\x01"), _BAD),
    "NUL in a value": (vectors.get(b"/mirror/", b"X: y\0"), _BAD),
    "a blank before the colon": (vectors.get(b"/mirror/", b"X : y"), _BAD),
    "a line without a colon": (vectors.get(b"/mirror/", b"X"), _BAD),
    "a fold": (vectors.get(b"/mirror/", b"X: y\r\n z"), _BAD),
    "a length below zero": (vectors.post(b"Content-Length: -2", body=b"hi"), _BAD),
    "a length of letters": (vectors.post(b"Content-Length: two", body=b"hi"), _BAD),
    "a length that overflows": (vectors.post(b"Content-Length: 18446744073709551618"), _BAD),
    "a length below zero that overflows": (
        vectors.post(b"Content-Length: -18446744073709551618"),
        _BAD,
    ),
    "a length and chunks": (
        vectors.post(vectors.TE, b"Content-Length: 5", body=vectors.END),
        _BAD,
    ),
    "a chunk size of letters": (vectors.post(vectors.TE, body=b"zz\r\n" + vectors.END), _BAD),
    "no version": (b"GET /mirror/\r\nHost: @\r\n\r\n", range(400, 600)),
    "another protocol's version": (
        b"GET /mirror/ HTTQ/1.1\r\nHost: @\r\n\r\n",
        range(400, 600),
    ),
}


def test_a5_h1spec(mirror: Mirror) -> None:
    """A5: 33 of 33 cases of what any HTTP/1.1 server does; the connection ends after each."""
    assert len(H1SPEC) == 33
    streams = [[vectors.fill(raw, mirror.host)] for raw, _ in H1SPEC.values()]
    missed: dict[str, list[int]] = {}
    heard = mirror.talk_all(streams, shut=False)
    for (name, (_, wanted)), data in zip(H1SPEC.items(), heard, strict=True):
        statuses = [answer.status for answer in answers(data)[0]]
        if len(statuses) != 1 or statuses[0] not in wanted:
            missed[name] = statuses
    assert missed == {}


def test_a6_pipelining(
    mirror: Mirror, counts: Counts, rng: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    """A6: 100 requests at once per connection, mixed; order kept; nothing behind a bad one."""
    connections = counts(pr=50, nightly=500)
    good = [seed for seed in vectors.seeds() if b"HTTP/1.0" not in seed and b"Expect" not in seed]
    single = [seed for seed in good if seed.count(b"HTTP/1.1") == 1]
    bad = [
        *(
            vectors.get(b"/mirror/#"),
            vectors.post(vectors.TE, b"Content-Length: 1"),
            b"\x16\x03\x01",
        ),
        *(vectors.get(b"/mirror/", b"A : b"), b"GET /mirror/ HTTP/1.1\r\n\r\n"),
    ]
    verdicts = Verdicts()
    streams: list[tuple[bytes, bool]] = []
    for n in range(connections):
        many = [rng.choice(single) for _ in range(100)]
        if n % 2:
            many[50] = rng.choice(bad)
        else:
            many[99] = vectors.CLOSING
        streams.append((vectors.fill(b"".join(many), mirror.host), bool(n % 2)))
    heard = mirror.talk_all([[stream] for stream, _ in streams], shut=False, at_once=4)
    for (stream, spoiled), data in zip(streams, heard, strict=True):
        verdicts.judge(stream, data, whole=not spoiled)
        if spoiled:
            methods = [request.method for request in reference.read(stream).requests]
            got = [answer.status for answer in answers(data, methods)[0]]
            assert got[:50] == [200] * 50
            assert 200 not in got[50:]
            assert len(got) <= 51
    told("A6", verdicts, capsys)


@pytest.mark.timeout(240)
def test_a7_slow_clients(mirror: Mirror, nightly: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A7: silent, dripping and unreading clients are ended in time, and nobody else feels them."""
    found = slow.attack(
        mirror.port,
        mirror.server.process.pid,
        300 if nightly else 40,
        good="/fn/local/odd-answers/",
        body="/fn/local/body-fate/",
        large="/fn/local/streams/download?bytes=100000000",
    )
    with capsys.disabled():
        print(f"\nA7: {found}")
    assert set(found.ended) == set(slow.KINDS)
    for kind, (most_s, statuses) in found.ended.items():
        assert most_s <= slow.MOST_S[kind] + 5, kind
        assert statuses <= slow.STATUSES[kind], kind
    assert found.faults == 0
    assert found.grown_bytes <= 50 * MIB
    # on a busy machine a quiet p99 of a millisecond says little: 25 ms is no harm in any case
    assert found.p99_s <= max(2 * found.quiet_p99_s, 0.025)


def _sized(size: int) -> dict[str, Callable[[bytes], bytes]]:
    """Requests that are `size` bytes more than what may be: name to raw bytes."""
    head, most_url = limits.EDGE_HEAD.value + size, limits.EDGE_TARGET.value + size
    headers = limits.EDGE_HEADERS.value + size - 2
    length = MIB + size

    def fields(host: bytes) -> int:
        return head - len(b"Host: \r\n") - len(host) - len(CLOSE) - 2

    def several(host: bytes) -> bytes:
        left, lines = fields(host), list[bytes]()
        while left > 8:
            take = min(1000, left) if left - 1000 > 8 or left <= 1000 else left - 9
            lines.append(b"X: " + b"v" * (take - 5))
            left -= take
        assert left == 0
        return vectors.get(b"/mirror/", *lines, CLOSE)

    def chunked(*sizes: int) -> bytes:
        body = b"".join(b"%x\r\n%b\r\n" % (n, b"b" * n) for n in sizes)
        return vectors.post(vectors.TE, CLOSE, body=body + vectors.END)

    return {
        "url": lambda _: vectors.get(b"/mirror/" + b"u" * (most_url - 8), CLOSE),
        "query": lambda _: vectors.get(b"/mirror/?" + b"q" * (most_url - 9), CLOSE),
        "a value": lambda host: vectors.get(b"/mirror/", b"X: " + b"v" * (fields(host) - 5), CLOSE),
        "a name": lambda host: vectors.get(b"/mirror/", b"n" * (fields(host) - 5) + b": v", CLOSE),
        "many lines": several,
        "count": lambda _: vectors.get(b"/mirror/", *[b"X: y"] * headers, CLOSE),
        "length": lambda _: vectors.post(b"Content-Length: %d" % length, CLOSE, body=b"b" * length),
        "chunks": lambda _: chunked(length // 2, length - length // 2),
    }


REFUSED_BY = {
    "url": 414,
    "query": 414,
    "a value": 431,
    "a name": 431,
    "many lines": 431,
    "count": 431,
    "length": 413,
    "chunks": 413,
}


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("name", REFUSED_BY)
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a8_limits(mirror: Mirror, name: str, over: int, pieces: int) -> None:
    """A8: one byte (line, header) below, at and past each limit, in one write and in three."""
    raw = vectors.fill(_sized(over)[name](mirror.host), mirror.host)
    step = len(raw) // pieces + 1
    cut = [raw[at : at + step] for at in range(0, len(raw), step)]
    (data,) = mirror.talk_all([cut], shut=False, pause_s=0.002 if pieces > 1 else 0.0)
    ((answer,), broken) = answers(data)
    assert not broken
    assert answer.status == (REFUSED_BY[name] if over > 0 else 200)


def test_a8_what_is_far_past_the_limits(mirror: Mirror) -> None:
    """A8: 10,000 headers, endless extensions and trailers: refused, and at once."""
    for raw in (
        vectors.get(b"/mirror/", *[b"X-%d: y" % n for n in range(10_000)]),
        vectors.post(vectors.TE, body=b"1;" + b"a" * 100 * KIB + b"\r\nx\r\n" + vectors.END),
        vectors.post(vectors.TE, body=b"0\r\nT: " + b"t" * 100 * KIB + b"\r\n\r\n"),
        vectors.post(vectors.TE, body=b"0\r\n" + b"T: t\r\n" * 30_000 + b"\r\n"),
    ):
        began = time.monotonic()
        (data,) = mirror.talk_all([[vectors.fill(raw, mirror.host)]], shut=False)
        ((answer,), _) = answers(data)
        assert answer.status in (400, 431)
        # the answer is there at once; the connection lingers a little, so that it can be read
        assert time.monotonic() - began < limits.EDGE_LINGER_S.value + 1


def test_a9_truncated_uploads(
    mirror: Mirror, counts: Counts, rng: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    """A9: a body that is cut anywhere, by FIN or RST, rejects in the function: 0 look whole."""
    many = counts(pr=200, nightly=2000)
    for n in range(many):
        target = b"POST /body-fate/cut-%d HTTP/1.1\r\nHost: @\r\n" % n
        size = rng.randrange(1, 200_000)
        data = rng.randbytes(size)
        if rng.random() < 0.5:
            head, body = b"Content-Length: %d\r\n\r\n" % size, data
        else:
            head = vectors.TE + b"\r\n\r\n"
            step = rng.randrange(1, size + 1)
            pieces = [data[at : at + step] for at in range(0, size, step)][:500]
            body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + vectors.END
        cut = rng.randrange(len(body))
        with mirror.connect() as client:
            client.sendall(vectors.fill(target + head, mirror.host) + body[:cut])
            if rng.random() < 0.5:
                client.shutdown(socket.SHUT_WR)
                got = b""
                while more := client.recv(65536):
                    got += more
                assert b" 200 " not in got, n
            else:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pause(1, "a `request` event may follow by 100 ms")
    events = [e for e in mirror.server.events if "/cut-" in e.get("path", "")]
    fates = [str(log) for e in events for log in e.get("logs", ()) if "body " in str(log)]
    with capsys.disabled():
        print(f"\nA9: {many} cut, {len(events)} reached the function, {len(fates)} told their fate")
    assert not [fate for fate in fates if "resolved" in fate]
    assert not [e for e in events if e["outcome"] == "ok"]
    assert len(events) >= many // 2


FOREIGN: dict[str, bytes] = {
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "SSL 2": bytes.fromhex("802e0100020015000000100100800200800600400400800700c0080080")
    + bytes(32),
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
    "HTTP/0.9": b"GET /mirror/\r\n",
    "HTTP/0.9, named": b"GET /mirror/ HTTP/0.9\r\nHost: @\r\n\r\n",
    "a PROXY line": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + vectors.get(b"/mirror/"),
    "PROXY 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + vectors.get(b"/mirror/"),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"EHLO localhost\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "PostgreSQL": bytes.fromhex("0000000804d2162f"),
    "NUL bytes": bytes(64),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a10_other_protocols(mirror: Mirror, name: str) -> None:
    """A10: 12 of 12 protocols that are not ours: 400, 505 or closed; never 101, never 200."""
    assert len(FOREIGN) == 12
    (data,) = mirror.talk_all([[vectors.fill(FOREIGN[name], mirror.host)]])
    assert data == b"" or re.match(rb"HTTP/1\.1 (400|501|505) ", data)


def _odd() -> list[tuple[str, str]]:
    hexed = [
        *(
            b"a\r\nb",
            b"a\nb",
            b"a\rb",
            b"a\0b",
            b"\r\n\r\n<html>",
            b"a\x01b",
            b"a\x7fb",
            b"a\tb",
            b" a ",
        ),
        *(b"\xe9", b"\xff\xfe", b"", b"a\x0bb", b"a\x85b", b"a: b", b"a b", b"\r\nset-cookie: e=1"),
    ]
    names = [
        b"x y",
        b"x:",
        b"",
        b"x\r\ny",
        b"x\0",
        b"\xe9",
        b"x(",
        b"connection",
        b"trailer",
        b"te",
        b"upgrade",
    ]
    framings = [
        *(b"content-length: 3", b"content-length: 30", b"content-length: 0", b"content-length: -1"),
        *(b"content-length: x", b"content-length: 10, 10", b"transfer-encoding: chunked"),
        *(b"transfer-encoding: gzip", b"transfer-encoding: identity", b"connection: close"),
        *(
            b"connection: content-length",
            b"upgrade: websocket",
            b"trailer: x",
            b"keep-alive: max=9",
        ),
    ]
    return [
        *(
            ("status", text)
            for text in ("0", "99", "100", "101", "103", "199", "204", "205", "304")
        ),
        *(("status", text) for text in ("200", "299", "599", "600", "999", "1000", '"200"', "NaN")),
        *(("status-body", text) for text in ("204", "205", "304", "101")),
        *((kind, text.hex()) for kind in ("value", "reason") for text in hexed),
        *(("name", text.hex()) for text in names),
        *((kind, f.hex()) for kind in ("framing", "framing-stream") for f in framings),
        *(("many", text) for text in ("150", "10000")),
        *(("large", text) for text in ("60000", "70000", "1000000")),
        *(("cookies", text) for text in ("100", "1000")),
        *(("fixed", text) for text in ("10", "9", "11")),
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a11_odd_answers(mirror: Mirror, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A11: whatever a function answers, the wire has exactly one answer, or visibly none."""
    odd = _odd()
    assert len(odd) >= 80
    said: dict[int, int] = {}
    for kind, value in odd:
        target = f"/odd-answers/?kind={kind}&value={value.replace(chr(34), '%22')}"
        head = f"{method} {target} HTTP/1.1\r\nHost: {mirror.host.decode()}\r\n"
        raw = head.encode() + CLOSE + b"\r\n\r\n"
        (data,) = mirror.talk_all([[raw]], shut=False)
        got, broken = answers(data, [method])
        if broken:
            assert kind in ("framing-stream", "framing", "fixed"), (kind, value, data[:300])
            continue
        assert len(got) == 1, (kind, value, data[:300])
        answer: Answer = got[0]
        said[answer.status] = said.get(answer.status, 0) + 1
        names = [name for name, _ in answer.fields]
        assert not {"keep-alive", "te", "trailer", "upgrade"} & set(names), (kind, value)
        assert "e=1" not in [v for n, v in answer.fields if n == "set-cookie"]
        assert names.count("content-length") <= 1
        assert names.count("connection") == 1
    with capsys.disabled():
        print(f"\nA11 {method}: {len(odd)} answers, statuses {said}")
    assert mirror.server.get("/fn/local/odd-answers/").status == 200


EXPECT: dict[str, tuple[list[bytes], bytes]] = {
    # what is sent, piece by piece; what is heard first
    "the body at once": ([b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"], b""),
    "the body later": ([b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", b"hi"], b"100"),
    "in other letters": ([b"expect: 100-CONTINUE\r\ncontent-length: 2\r\n\r\n", b"hi"], b"100"),
    "chunks later": (
        [b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhi\r\n0\r\n\r\n"],
        b"100",
    ),
    "half of the body": ([b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nh", b"i"], b""),
    "no body": ([b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n"], b""),
    "no framing": ([b"Expect: 100-continue\r\n\r\n"], b""),
    "another expectation": ([b"Expect: wonders\r\nContent-Length: 2\r\n\r\nhi"], b""),
    "two of them": (
        [b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", b"hi"],
        b"100",
    ),
}


@pytest.mark.parametrize("name", EXPECT)
def test_a13_expect(mirror: Mirror, name: str) -> None:
    """A13: one 100 at most, only before a body that is not here; the next is in step."""
    pieces, first = EXPECT[name]
    begin = vectors.fill(b"POST /mirror/e HTTP/1.1\r\nHost: @\r\n", mirror.host)
    last = vectors.fill(vectors.CLOSING, mirror.host)
    with mirror.connect() as client:
        client.sendall(begin + pieces[0])
        interim = b""
        if first:
            interim = client.recv(65536)
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"".join(pieces[1:]) + last)
        data = b""
        while more := client.recv(65536):
            data += more
    assert (interim + data).count(b" 100 Continue") <= 1
    verdicts = Verdicts()
    verdicts.judge(begin + b"".join(pieces) + last, data, whole=True)
    verdicts.none_wrong()


def test_a13_expect_and_never_a_body(mirror: Mirror) -> None:
    """A13: answered without its body, a client is not read on: what would that be?"""
    head = (
        b"POST /nobody/ HTTP/1.1\r\nHost: @\r\nExpect: 100-continue\r\nContent-Length: 200\r\n\r\n"
    )
    with mirror.connect() as client:
        client.sendall(vectors.fill(head, mirror.host))
        data = b""
        while more := client.recv(65536):
            data += more
    ((answer,), broken) = answers(data)
    assert (answer.status, broken) == (404, False)
    assert ("connection", "close") in answer.fields
