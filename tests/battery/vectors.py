"""Byte streams that two readers could understand differently: rows A1, A2 and A5.

Templates hold `@` for the Host value; `fill` puts it in. What each must come to is not written
here: `reference` reads it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

SMUGGLED = b"GET /mirror/smuggled HTTP/1.1\r\nHost: local.fn.localhost\r\nX-Mark: smuggled\r\n\r\n"
CLOSING = b"GET /mirror/last HTTP/1.1\r\nHost: @\r\nConnection: close\r\n\r\n"
TE = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
ODD = bytes((0x01, 0x04, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1F, 0x20, 0x7F, 0xA0, 0xFF))


def get(target: bytes = b"/mirror/x", *lines: bytes, version: bytes = b"1.1") -> bytes:
    """A GET with more header lines."""
    head = (b"GET %b HTTP/%b" % (target, version), b"Host: @", *lines, b"", b"")
    return b"\r\n".join(head)


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A POST with more header lines."""
    head = (b"POST /mirror/x HTTP/%b" % version, b"Host: @", *lines, b"", b"")
    return b"\r\n".join(head) + body


def fill(stream: bytes, host: bytes) -> bytes:
    """A stream as it goes out."""
    return stream.replace(b"@", host).replace(b"%PORT", host.rpartition(b":")[2])


def framing() -> list[bytes]:
    """A1: kinds of ambiguous, broken and merely odd requests. Each is followed by `SMUGGLED`."""
    families = (
        _codings(),
        _lengths(),
        _both(),
        _names(),
        _line_ends(),
        _chunks(),
        _request_lines(),
        _folds(),
        _upgrades(),
    )
    return list(dict.fromkeys(itertools.chain.from_iterable(families)))


def _codings() -> Iterator[bytes]:
    values = [
        *(b"chunked", b"CHUNKED", b"Chunked", b" chunked", b"\tchunked", b"chunked ", b"chunked\t"),
        *(b",chunked", b"chunked,", b", chunked", b"chunked,,", b"chunked, chunked", b"identity"),
        *(b"gzip, chunked", b"chunked, gzip", b"chunked, identity", b"identity, chunked", b"gzip"),
        *(b"xchunked", b"chunkedx", b"chunke", b"chunked;q=1", b"chunked; a=b", b'"chunked"'),
        *(b"'chunked'", b"chunked\x0b", b"\x0bchunked", b"\x0cchunked", b"chunked\x00", b""),
        *(b"chunked\xa0", b"\xa0chunked", b"chu nked", b"chunk\xc4\xb1ed", b"trailers", b"*", b"0"),
        *(b"chunked\r", b"chunked\n", b"cow", b"cow, chunked", b"\x7fchunked", b"chunked\xff"),
    ]
    for value in values:
        yield post(b"Transfer-Encoding:" + value, body=END)
        yield post(b"Transfer-Encoding: " + value, b"Content-Length: 5", body=END)
    yield post(TE, TE, body=END)
    yield post(TE, b"Transfer-Encoding: identity", body=END)
    yield post(b"Transfer-Encoding: identity", TE, body=END)
    yield post(b"TE: chunked", body=END)
    yield post(TE, body=END, version=b"1.0")


def _lengths() -> Iterator[bytes]:
    values = [
        *(b"5", b"05", b"0000000005", b" 5", b"5 ", b"\t5\t", b"+5", b"-5", b"-0", b"0x5", b"5.0"),
        *(b"5,5", b"5, 5", b"5,", b",5", b"5;", b"5 5", b"5\x0b", b"\x0b5", b"5\x00", b"1e0", b""),
        *(b"five", b"5five", b"\xd9\xa5", b"4294967301", b"18446744073709551615"),
        *(b"18446744073709551616", b"18446744073709551621", b"9" * 40, b"0" * 40 + b"5", b"_5"),
        *(b"5_0", b'"5"', b"5\xa0", b"0b101", b"0o5", b"5L", b"\xef\xbc\x95", b"(5)"),
    ]
    for value in values:
        yield post(b"Content-Length:" + value, body=b"12345")
    for one, other in itertools.product((b"5", b"0", b"6", b""), repeat=2):
        yield post(b"Content-Length: " + one, b"Content-Length: " + other, body=b"12345")
    yield get(b"/mirror/x", b"Content-Length: 5") + b"12345"
    yield post(b"content-length: 5", b"CONTENT-LENGTH: 5", body=b"12345")
    yield post(b"Content_Length: 5", b"Content-Length: 0")
    yield post(b"Content-Length: 0", b"Content_Length: 5")


def _both() -> Iterator[bytes]:
    inner = SMUGGLED
    clte = b"Content-Length: %d" % len(END + inner)
    for te in (TE, b"transfer-encoding: CHUNKED", b"Transfer_Encoding: chunked"):
        for lines in ((clte, te), (te, clte)):
            yield post(*lines, body=END + inner)
            yield post(*lines, body=END + inner, version=b"1.0")
    for length in (b"0", b"3", b"4", b"5"):
        for lines in ((TE, b"Content-Length: " + length), (b"Content-Length: " + length, TE)):
            yield post(*lines, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner))
    yield get(b"/mirror/x", b"Content-Length: 0", TE) + END
    yield get(b"/mirror/x", TE) + END
    yield get(b"/mirror/x", b"Content-Length: %d" % len(inner)) + inner


def _names() -> Iterator[bytes]:
    for bad in (
        b" ",
        b"\t",
        b"\x00",
        b"\x0b",
        b"\xa0",
        b"\xff",
        b"(",
        b"/",
        b'"',
        b"[",
        b"\\",
        b"@@",
    ):
        yield post(b"Transfer-Encoding" + bad + b": chunked", body=END)
        yield post(b"Content-Length" + bad + b": 5", body=b"12345")
        yield get(b"/mirror/x", bad + b"X-A: b")
    yield get(b"/mirror/x", b"X-A")
    yield get(b"/mirror/x", b":x")
    yield get(b"/mirror/x", b": x")
    yield get(b"/mirror/x", b"X-A; b")
    yield get(b"/mirror/x", b"X-A:")
    yield get(b"/mirror/x", b"X.A~!#$%&'*+^`|: b")


def _line_ends() -> Iterator[bytes]:
    whole = post(b"A: b", TE, body=b"2\r\nhi\r\n0\r\nT: r\r\n\r\n")
    places = [at for at in range(len(whole)) if whole[at : at + 2] == b"\r\n"]
    for end in (
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\n\r",
        b"\0\r\n",
        b"\x0b",
        b"\x0c",
        b"\x85",
        b"\r\0\n",
        b"",
    ):
        for at in places:
            yield whole[:at] + end + whole[at + 2 :]
    for blank in (b"\r\n", b"\r\n\r\n", b"\n", b" \r\n", b"\t", b"\0", b"\r"):
        yield blank + get()


def _chunks() -> Iterator[bytes]:
    sizes = [
        *(
            b"2",
            b"02",
            b"0000000000000002",
            b"00000000000000002",
            b"0x2",
            b"+2",
            b"-2",
            b" 2",
            b"2 ",
        ),
        *(b"\t2", b"2\t", b"2;", b"2;a", b"2;a=b", b'2;a="b"', b"2;a=b;c", b"2 ;a=b", b"2; a=b"),
        *(
            b"2;\n",
            b"2;a\nb",
            b"2;a\rb",
            b'2;a="\r\n"',
            b"2\0",
            b"2;\0",
            b"2,2",
            b"2_",
            b"g",
            b"",
            b"\xb2",
        ),
        *(
            b"10000000000000000",
            b"ffffffffffffffff",
            b"fffffffffffffffff",
            b"2.0",
            b"2e0",
            b"2h",
            b"2#",
        ),
        *(b"100000002", b"2;=", b"2;a==b", b";", b"2;;", b'2;a="b', b"\xef\xbc\x92"),
    ]
    for size in sizes:
        yield post(TE, body=size + b"\r\nhi\r\n" + END)
    for body in (
        *(
            b"2\r\nhi" + END,
            b"2\r\nhiX\r\n" + END,
            b"2\r\nh\r\n" + END,
            b"2\r\nhi\n" + END,
            b"2\nhi\r\n",
        ),
        *(
            b"0\r\nA: b\nC: d\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\n A: b\r\n\r\n",
            b"0\r\nA: b\r\n c\r\n\r\n",
        ),
        *(
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nHost: evil\r\n\r\n",
            b"0\r\n" + TE + b"\r\n\r\n",
        ),
        *(
            b"00\r\n\r\n",
            b"000000000000000000\r\n\r\n",
            b"0;a=b\r\n\r\n",
            b"0 \r\n\r\n",
            b"-0\r\n\r\n",
        ),
    ):
        yield post(TE, body=body)


def _request_lines() -> Iterator[bytes]:
    rest = b"\r\nHost: @\r\n\r\n"
    for line in (
        *(b"GET  /mirror/x HTTP/1.1", b"GET /mirror/x  HTTP/1.1", b"GET\t/mirror/x HTTP/1.1"),
        *(b" GET /mirror/x HTTP/1.1", b"GET /mirror/x HTTP/1.1 ", b"GET /mirror/x\tHTTP/1.1"),
        *(
            b"GET /mirror/x",
            b"GET",
            b"",
            b"GET /mirror/x HTTP/1",
            b"GET /mirror/x HTTP/1.",
            b"/mirror/x HTTP/1.1",
        ),
        *(
            b"GET /mirror/x HTTP/0.9",
            b"GET /mirror/x HTTP/1.2",
            b"GET /mirror/x HTTP/2.0",
            b"GET /mirror/x HTTP/2",
        ),
        *(
            b"GET /mirror/x HTTP/3.0",
            b"GET /mirror/x HTTP/9.9",
            b"GET /mirror/x HTTP/01.1",
            b"GET /mirror/x HTTP/1.10",
        ),
        *(
            b"GET /mirror/x HTTP/1.1x",
            b"GET /mirror/x http/1.1",
            b"GET /mirror/x HTTPS/1.1",
            b"GET /mirror/x HTTP 1.1",
        ),
        *(
            b"GET /mirror/x HTTP/1,1",
            b"GET /mirror/x XTTP/1.1",
            b"GET /mirror/x HTTP/-1.1",
            b"GET /mirror/x RTSP/1.0",
        ),
        *(
            b"get /mirror/x HTTP/1.1",
            b"Get /mirror/x HTTP/1.1",
            b"GE T /mirror/x HTTP/1.1",
            b"G\0ET /mirror/x HTTP/1.1",
        ),
        *(b"FOO /mirror/x HTTP/1.1", b"GET\xff /mirror/x HTTP/1.1", b"G(T /mirror/x HTTP/1.1"),
        *(
            b"GET x HTTP/1.1",
            b"GET * HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET @ HTTP/1.1",
            b"CONNECT @ HTTP/1.1",
        ),
        *(
            b"GET http://@/mirror/x HTTP/1.1",
            b"GET HTTP://@/mirror/x HTTP/1.1",
            b"GET http://evil/mirror HTTP/1.1",
        ),
        *(
            b"GET http://u@@/mirror HTTP/1.1",
            b"GET http://@:1/mirror HTTP/1.1",
            b"GET //@/mirror HTTP/1.1",
        ),
        *(
            b"GET https://@/mirror/x HTTP/1.1",
            b"GET ftp://@/mirror HTTP/1.1",
            b"GET http:///mirror HTTP/1.1",
        ),
        *(
            b"GET /mirror/a#b HTTP/1.1",
            b"GET /mirror/\xc3\xa9 HTTP/1.1",
            b"GET /mirror/\x7f HTTP/1.1",
        ),
        *(
            b"GET /mirror/a b HTTP/1.1",
            b"GET /mirror/\0 HTTP/1.1",
            b"GET /mirror/<> HTTP/1.1",
            b'GET /mirror/" HTTP/1.1',
        ),
        *(
            b"GET /mirror\\x HTTP/1.1",
            b"GET \\mirror HTTP/1.1",
            b"GET /mirror?x HTTP/1.1",
            b"GET ?mirror HTTP/1.1",
        ),
        *(
            b"PRI * HTTP/2.0",
            b"GET /mirror/x HTTP/1.1\x0b",
            b"TRACE /mirror/x HTTP/1.1",
            b"PURGE /mirror/x HTTP/1.1",
        ),
    ):
        yield line + rest
    yield b"GET /mirror/x HTTP/1.1\r\n\r\n"
    yield b"GET /mirror/x HTTP/1.0\r\n\r\n"
    yield get(b"/mirror/x", b"Host: @")
    yield get(b"/mirror/x", b"host: evil")
    yield get(b"/mirror/x", version=b"1.0")
    yield get(b"/mirror/x", b"Connection: keep-alive", version=b"1.0")
    for connection in (
        b"close",
        b"Close",
        b"keep-alive, close",
        b"close, x",
        b"x-close",
        b"cl ose",
    ):
        yield get(b"/mirror/x", b"Connection: " + connection)


def _folds() -> Iterator[bytes]:
    for fold in (b"\r\n ", b"\r\n\t", b"\r\n  \t", b"\r\n \r\n "):
        yield get(b"/mirror/x", b"A: b" + fold + b"c")
        yield get(b"/mirror/x", b"A:" + fold + b"c")
        yield post(b"Transfer-Encoding:" + fold + b"chunked", body=END)
        yield post(b"Content-Length:" + fold + b"5", body=b"12345")
        yield get(b"/mirror/x", b"A: b" + fold + b"X-Amba-User-Id: evil")
    yield b"GET /mirror/x HTTP/1.1\r\n Host: @\r\n\r\n"
    yield b"GET /mirror/x HTTP/1.1\r\n X: y\r\nHost: @\r\n\r\n"


def _upgrades() -> Iterator[bytes]:
    for name in (b"h2c", b"HTTP/2.0", b"TLS/1.0", b"foo", b"websocketx", b"", b"h2c, websocket"):
        yield get(b"/mirror/x", b"Connection: Upgrade", b"Upgrade: " + name)
        yield post(
            *(b"Connection: upgrade, HTTP2-Settings", b"Upgrade: " + name),
            *(b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Content-Length: 5"),
            body=b"12345",
        )
        yield post(b"Connection: upgrade", b"Upgrade: " + name, TE, body=b"2\r\nhi\r\n" + END)
    for expect in (b"100-continue", b"100-CONTINUE", b"200-ok", b"", b"100-continue, x"):
        yield post(b"Expect: " + expect, b"Content-Length: 5", body=b"12345")
        yield get(b"/mirror/x", b"Expect: " + expect)


_TE_PLACES = (0, 4, 8, 9, 13, 17, 18, 19, 22, 26, 27, 28)
_CL_PLACES = (0, 14, 16, -2)


def grid() -> list[bytes]:
    """A2: one or two odd bytes around `Transfer-Encoding`, as CL.TE and as TE.CL: 3,536."""
    out: list[bytes] = []
    places = [("te", at) for at in _TE_PLACES] + [("cl", at) for at in _CL_PLACES]
    for chosen in (*((one,) for one in places), *itertools.combinations(places, 2)):
        for byte in ODD:
            odd = bytes((byte,))
            for clte in (True, False):
                inner = SMUGGLED
                chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
                body = END + inner if clte else chunk
                te = TE + b"\r\n"
                cl = b"Content-Length: %d\r\n" % (len(body) if clte else 4)
                for which, at in sorted(chosen, key=lambda one: -one[1] % 64):
                    if which == "te":
                        te = te[:at] + odd + te[at:]
                    else:
                        at %= len(cl)
                        cl = cl[:at] + odd + cl[at:]
                lines = cl + te if clte else te + cl
                out.append(b"POST /mirror/x HTTP/1.1\r\nHost: @\r\n" + lines + b"\r\n" + body)
    return out


def seeds() -> list[bytes]:
    """40 valid streams, of one to three requests."""
    form = b"Content-Type: application/x-www-form-urlencoded"
    one = [
        get(b"/mirror/"),
        get(b"/mirror"),
        get(b"/fn/local/mirror/a/b?c=d&e=%20f").replace(b"@", b"127.0.0.1:%PORT"),
        get(b"/mirror/%2e%2e/%2F//;p=1?x=y&x=z"),
        get(b"/mirror/x?"),
        get(b"http://@/mirror/absolute?q"),
        get(b"/mirror/c", b"Cookie: a=b; c=d", b"Cookie: e=f"),
        get(b"/mirror/h", b"Accept: */*", b"Accept-Encoding: gzip, br", b"User-Agent: t/1.0 (x)"),
        get(b"/mirror/e", b"X-Empty:", b"X-Blank: \t ", b"X-High: \xc3\xa9\xff"),
        get(b"/mirror/n", b"Connection: X-Private", b"X-Private: secret", b"X-Public: p"),
        get(b"/mirror/f", b"X-Amba-User-Id: evil", b"x_amba_user_id: evil", b"X-Ambassador: e"),
        get(b"/mirror/r", b"Range: bytes=0-1", b'If-None-Match: "x"', b"Referer: http://x/?a#b"),
        get(b"/mirror/l", *[b"X-%d: %b" % (n, b"v" * n) for n in range(1, 40)]),
        get(b"/mirror/g", b"Content-Length: 3") + b"abc",
        get(b"/mirror/1.0", version=b"1.0"),
        get(b"/mirror/u", b"Connection: Upgrade", b"Upgrade: h2c"),
        post(b"Content-Length: 0"),
        post(),
        post(b"Content-Length: 11", form, body=b"a=b&c=d&e=f"),
        post(b"content-length:  3  ", body=b"\r\n\r"),
        post(b"Content-Length: 00040", body=b"x" * 40),
        post(b"Content-Length: 300", body=bytes(range(256)).replace(b"@", b"y") + b"y" * 44),
        post(TE, body=END),
        post(TE, body=b"5\r\nhello\r\n6\r\n world\r\n" + END),
        post(TE, body=b'1;a=b\r\nx\r\n1;c="d"\r\ny\r\n' + END),
        post(TE, body=b"00a\r\n0123456789\r\n0\r\nT: r\r\nX-Amba-User-Id: evil\r\n\r\n"),
        post(b"Transfer-Encoding: CHUNKED", b"Trailer: T", body=b"2\r\n\r\n\r\n0\r\nT:\r\n\r\n"),
        post(TE, body=b"".join(b"1\r\n%c\r\n" % c for c in b"byte by byte") + END),
        post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"),
        post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        get().replace(b"GET", b"HEAD"),
        get().replace(b"GET", b"DELETE"),
        get().replace(b"GET", b"OPTIONS"),
        post(b"Content-Length: 2", body=b"{}").replace(b"POST", b"PATCH"),
        post(TE, body=b"2\r\n{}\r\n" + END).replace(b"POST", b"PUT"),
        b"\r\n" + get(b"/mirror/blank"),
    ]
    two = [
        one[0] + one[18],
        one[23] + one[2] + one[26],
        one[29] + one[12],
        one[30] + one[16] + one[24],
    ]
    return one + two


def mutant(seeds: list[bytes], rng: random.Random) -> bytes:
    """A3: one to four changes of a valid stream."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            odd = rng.choice((rng.randbytes(1), *_SPLICES))
            data[at:at] = odd
        elif kind == 2:
            del data[at : at + rng.choice((1, 1, 2, 5, 20))]
        elif kind == 3:
            lines = bytes(data).split(b"\r\n")
            n = rng.randrange(len(lines))
            lines.insert(rng.randrange(len(lines) + 1), lines[n])
            data = bytearray(b"\r\n".join(lines))
        elif kind == 4:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other)) :]
        elif kind == 5:
            lines = bytes(data).split(b"\r\n")
            rng.shuffle(lines[1:-2])
            data = bytearray(b"\r\n".join(lines))
        else:
            data[at:at] = data[at : at + rng.randrange(1, 30)]
        if not data:
            data = bytearray(rng.choice(seeds))
    return bytes(data)


_SPLICES = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\x0b", b"\x7f", b"\xff", b"0"),
    *(b"\r\n\r\n", END, TE, TE + b"\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n"),
    *(b"Host: evil\r\n", b"Connection: close\r\n", b"X-Amba-User-Id: evil\r\n", b"\r\n ", SMUGGLED),
    *(b"Connection: content-length\r\n", b"Connection: host, x-amba-signature\r\n", b"HTTP/1.0"),
)
