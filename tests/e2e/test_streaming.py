"""Bytes in and out of a function, on the real server and the real engine (Must show 8 and 11)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.raw_http import BrokenTransfer, RawClient
from tests.e2e.streams_server import Streams
from tests.waiting import pause
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
PIECE = bytes(i % 251 for i in range(251 * 256))  # what /download repeats
AT = "/fn/local/streams"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    """The server of every test here; it has ended well after all of them."""
    place = tmp_path_factory.mktemp("streams")
    server = Streams(place, data_home=tmp_path_factory.mktemp("data"))
    yield server
    server.close()
    assert server.process.returncode == 0
    assert not [line for line in server.talk if "Traceback" in line]


@pytest.fixture
def client(dev: Streams) -> Iterator[RawClient]:
    """One connection to it."""
    with RawClient(dev.port) as one:
        yield one


def dial(dev: Streams, rest: str, *, subprotocols: list[str] | None = None) -> ClientConnection:
    """A WebSocket to a function; compression is not what is tested here."""
    offered = None if subprotocols is None else [Subprotocol(p) for p in subprotocols]
    return connect(
        f"ws://127.0.0.1:{dev.port}{rest}",
        subprotocols=offered,
        compression=None,
        max_size=None,
        legacy=True,
    )


# --- WebSockets ------------------------------------------------------------------------------


def test_a_socket_carries_text_and_bytes(dev: Streams) -> None:
    """Messages come back as what they were, empty ones too; the event says 101 (issue 2, 4)."""
    sent: list[str | bytes] = ["héllo ☕", b"\x00\xff", "", b""]
    with dial(dev, f"{AT}/ws?m=echo") as guest:
        back: list[str | bytes] = []
        for message in sent:
            guest.send(message)
            back.append(guest.recv(5))
    assert back == sent
    event = dev.request("m=echo")
    assert (event["status"], event["outcome"], event["method"]) == (101, "ok", "GET")


def test_a_message_in_fragments_is_one_message(dev: Streams) -> None:
    """Fragments are joined before the guest sees them (RFC 6455 section 5.4)."""
    with dial(dev, f"{AT}/ws") as guest:
        guest.send(["one, ", "two, ", "three"])
        assert guest.recv(5) == "one, two, three"


def test_a_ping_is_answered(dev: Streams) -> None:
    """A ping is answered on the way; the guest is not asked (RFC 6455 section 5.5.2)."""
    with dial(dev, f"{AT}/ws") as guest:
        assert guest.ping(b"are you there").wait(5)


def test_a_big_message_goes_both_ways(dev: Streams) -> None:
    """16 MiB in one message, there and back, unharmed (engines' own limit is 32 MiB)."""
    message = PIECE * (16 * MIB // len(PIECE))
    with dial(dev, f"{AT}/ws") as guest:
        guest.send(message)
        assert guest.recv(10) == message


def test_a_message_past_the_limit_is_refused(dev: Streams) -> None:
    """32 MiB and a byte end the socket, and the server serves on (limits.WEBSOCKET_BYTES)."""
    with dial(dev, f"{AT}/ws") as guest:
        with contextlib.suppress(ConnectionClosed):
            guest.send(b"x" * (32 * MIB + 1))
        with pytest.raises(ConnectionClosed):
            guest.recv(10)
        # 1006 where the caller was still sending when we closed
        assert guest.close_code in (1009, 1006)
    assert dev.get(f"{AT}/").status == 200


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (3000, ""), (4001, "wärum")])
def test_the_guest_closes_with_its_own_code(dev: Streams, code: int, reason: str) -> None:
    """Code and reason of the guest's close reach the caller."""
    with dial(dev, f"{AT}/ws-close?code={code}&reason={reason.encode().hex()}") as guest:
        guest.send("now")
        with pytest.raises(ConnectionClosed):
            guest.recv(5)
        assert (guest.close_code, guest.close_reason) == (code, reason.encode().hex())


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (4002, "tschüß")])
def test_the_caller_closes_with_its_own_code(dev: Streams, code: int, reason: str) -> None:
    """Code and reason of the caller's close reach the guest, which logs them."""
    guest = dial(dev, f"{AT}/ws?m=caller-{code}")
    guest.send("once")
    assert guest.recv(5) == "once"
    guest.close(code, reason)
    line = dev.line(f"m=caller-{code}", "socket closed")
    assert line == ["socket closed", code, reason, True]
    assert dev.request(f"m=caller-{code}")["outcome"] == "ok"


def test_the_guest_chooses_a_subprotocol(dev: Streams) -> None:
    """Of what is offered the guest takes one, or none (RFC 6455 section 4.2.2)."""
    with dial(dev, f"{AT}/ws-subprotocol", subprotocols=["chat.v2", "chat.v1"]) as guest:
        assert guest.subprotocol == "chat.v2"
    with dial(dev, f"{AT}/ws", subprotocols=["chat.v2"]) as guest:
        assert guest.subprotocol is None


def test_the_guest_refuses_an_upgrade(dev: Streams) -> None:
    """Its ordinary answer arrives whole: status, headers and body."""
    with pytest.raises(InvalidStatus) as refused:
        dial(dev, f"{AT}/ws-refuse?m=refused")
    answer = refused.value.response
    assert (answer.status_code, answer.body) == (403, b"no socket for you\n")
    event = dev.request("m=refused")
    assert (event["status"], event["outcome"]) == (403, "ok")


def test_a_socket_to_no_function_gets_the_envelope(dev: Streams) -> None:
    """404 in the platform's shape (contract A.7)."""
    with pytest.raises(InvalidStatus) as refused:
        dial(dev, "/fn/local/nobody/ws")
    answer = refused.value.response
    assert answer.status_code == 404
    assert json.loads(answer.body or b"")["error"]["code"] == "FUNCTION_NOT_FOUND"


def test_a_throw_before_the_socket_gets_the_envelope(dev: Streams) -> None:
    """500 `unhandled_exception`, and the exception is told (contract A.7)."""
    with pytest.raises(InvalidStatus) as refused:
        dial(dev, f"{AT}/throw?m=ws-thrown")
    answer = refused.value.response
    assert answer.status_code == 500
    error = json.loads(answer.body or b"")["error"]
    assert (error["code"], error["message"]) == ("unhandled_exception", "thrown on purpose")
    assert dev.exceptions("m=ws-thrown") == ["thrown on purpose"]


def test_the_guest_may_speak_first(dev: Streams) -> None:
    """Messages sent before the upgrade was answered arrive, in order."""
    with dial(dev, f"{AT}/ws-server-first?n=3") as guest:
        assert [guest.recv(5) for _ in range(3)] == [f"server message {n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["", "&binary"])
def test_the_guest_sends_a_big_message(dev: Streams, kind: str) -> None:
    """8 MiB of text or bytes in one message."""
    with dial(dev, f"{AT}/ws-big?bytes={8 * MIB}{kind}") as guest:
        message = guest.recv(10)
    assert message == (b"\x07" if kind else "x") * (8 * MIB)


def test_a_caller_that_vanishes_is_told_to_the_guest(dev: Streams) -> None:
    """A connection that is reset closes the guest's end with 1006, not cleanly."""
    guest = dial(dev, f"{AT}/ws?m=vanished")
    guest.send("once")
    assert guest.recv(5) == "once"
    guest.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    guest.socket.shutdown(socket.SHUT_RD)
    guest.socket.close()
    _, code, _, clean = dev.line("m=vanished", "socket closed")
    assert (code, clean) == (1006, False)
    assert dev.request("m=vanished")["outcome"] == "canceled"


def test_a_listener_that_throws_ends_its_socket(dev: Streams) -> None:
    """The caller gets 1011, the developer the exception; the function serves on."""
    with dial(dev, f"{AT}/ws-throw?m=listener") as guest:
        guest.send("now")
        with pytest.raises(ConnectionClosed):
            guest.recv(5)
        assert guest.close_code == 1011
    assert dev.exceptions("m=listener") == ["thrown in a socket listener"]


def test_a_socket_ends_with_its_engine(dev: Streams) -> None:
    """An engine that dies closes its sockets with 1011; the next one opens (reliability E30)."""
    with dial(dev, "/fn/local/victim/ws") as guest:
        guest.send("once")
        assert guest.recv(5) == "once"
        dev.engine_of("victim").kill()
        with pytest.raises(ConnectionClosed):
            guest.recv(5)
        assert guest.close_code == 1011
    assert dev.get("/fn/local/victim/").status == 200


def test_a_plain_request_to_a_socket_route_is_the_guests(dev: Streams) -> None:
    """Without an upgrade the guest's own 426 arrives."""
    assert dev.get(f"{AT}/ws").status == 426


# --- server-sent events ----------------------------------------------------------------------


def test_events_arrive_one_by_one(client: RawClient) -> None:
    """Each event arrives while the next is still to be made: nothing waits for an end."""
    client.begin("GET", f"{AT}/sse-forever?ms=30")
    status, headers = client.head()
    assert (status, dict(headers)["content-type"]) == (200, "text/event-stream")
    pieces = client.pieces(headers)
    assert [next(pieces) for _ in range(3)] == [
        f"id: {n}\ndata: event {n}\n\n".encode() for n in (1, 2, 3)
    ]


def test_a_stream_of_events_ends(client: RawClient) -> None:
    """A finite stream ends cleanly, and the connection serves on."""
    answer = client.ask("GET", f"{AT}/sse?n=2")
    assert answer.body == b"id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n"
    assert client.ask("GET", f"{AT}/").status == 200


def test_two_listeners_have_a_stream_each(dev: Streams) -> None:
    """Two callers at once count from one each."""
    with RawClient(dev.port) as one, RawClient(dev.port) as two:
        streams: list[Iterator[bytes]] = []
        for listener in (one, two):
            listener.begin("GET", f"{AT}/sse-forever?ms=5")
            streams.append(listener.pieces(listener.head()[1]))
        seen = [[next(stream) for _ in range(3)] for stream in streams]
    assert seen[0] == seen[1]


def test_a_listener_that_leaves_ends_the_stream(dev: Streams) -> None:
    """The guest's stream is cancelled, which it can tell; the outcome says so (row E24)."""
    with RawClient(dev.port) as listener:
        listener.begin("GET", f"{AT}/sse-forever?ms=5&m=left-sse")
        next(listener.pieces(listener.head()[1]))
    assert dev.request("m=left-sse", within_s=1)["outcome"] == "canceled"
    assert dev.line("m=left-sse", "stream cancelled after")


# --- interim answers -------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_expect_is_honoured(client: RawClient, value: str) -> None:
    """100 comes before the body is sent, then the answer (RFC 9110 section 10.1.1, row A13)."""
    client.begin("POST", f"{AT}/text", "content-length: 5", f"expect: {value}")
    assert client.head() == (100, [])
    client.send(b"hello")
    assert json.loads(client.answer().body) == {"text": "hello"}


def test_expect_without_a_body_gets_no_interim_answer(client: RawClient) -> None:
    """With `Content-Length: 0` there is nothing to wait for (row A13)."""
    client.begin("POST", f"{AT}/text", "content-length: 0", "expect: 100-continue")
    assert client.answer().status == 200


def test_expect_beyond_the_limit_gets_the_final_answer(dev: Streams) -> None:
    """413 comes instead of 100: the body is not asked for (row A13)."""
    with RawClient(dev.port) as client:
        length = f"content-length: {MIB + 1}"
        client.begin("POST", "/fn/local/small/text", length, "expect: 100-continue")
        assert client.answer().status == 413


def test_an_unknown_expectation_is_no_reason_to_wait(client: RawClient) -> None:
    """Anything but 100-continue is ignored (RFC 9110 section 10.1.1 allows it, row A13)."""
    client.begin("POST", f"{AT}/text", "content-length: 2", "expect: 200-ok")
    client.send(b"hi")
    assert json.loads(client.answer().body) == {"text": "hi"}


def test_a_guest_that_answers_early_is_heard(client: RawClient) -> None:
    """Its answer arrives though the body never comes; with Expect just the same (row A13)."""
    client.begin("POST", f"{AT}/ignore-body", "content-length: 100")
    assert client.answer().body == b"not read\n"
    client.send(b"x" * 100)
    client.begin("POST", f"{AT}/ignore-body", "content-length: 100", "expect: 100-continue")
    assert client.head() == (100, [])
    assert client.answer().body == b"not read\n"


@pytest.mark.parametrize("route", ["ignore-body", "read-one-chunk"])
def test_a_guest_that_does_not_read_all_is_heard(dev: Streams, route: str) -> None:
    """The engine closes on a body that nobody reads: the answer arrives all the same, always."""
    for _ in range(20):
        with RawClient(dev.port) as client:
            client.begin("POST", f"{AT}/{route}", f"content-length: {2 * MIB}")
            client.send(b"x" * (2 * MIB))
            assert client.answer().status == 200
            assert client.ask("GET", f"{AT}/").status == 200


# --- methods ---------------------------------------------------------------------------------


def test_head_has_the_length_and_no_body(client: RawClient) -> None:
    """HEAD keeps Content-Length, sends nothing after it, and the connection serves on."""
    answer = client.ask("HEAD", f"{AT}/head")
    assert answer.header("content-length") == "1000"
    assert answer.header("x-seen-method") == "HEAD"
    assert len(client.ask("GET", f"{AT}/head").body) == 1000


def test_head_of_a_stream_has_no_body(client: RawClient) -> None:
    """A stream's HEAD ends with its head, and the connection serves on."""
    assert client.ask("HEAD", f"{AT}/slow?chunks=3&ms=1").status == 200
    assert client.ask("HEAD", f"{AT}/download?bytes=70000&length").header("content-length") == (
        "70000"
    )
    assert client.ask("GET", f"{AT}/").status == 200


def test_head_of_a_throw_has_no_body(client: RawClient) -> None:
    """Our own answers to HEAD have a length and no body either."""
    answer = client.ask("HEAD", f"{AT}/throw")
    assert answer.status == 500
    assert int(answer.header("content-length") or 0) > 0
    assert client.ask("GET", f"{AT}/").status == 200


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "DELETE"])
def test_methods_pass(client: RawClient, method: str) -> None:
    """The guest answers every method, preflights included (contract A.8)."""
    asked = client.ask(method, f"{AT}/headers", "origin: http://example.com")
    assert json.loads(asked.body)["method"] == method


# --- callers that leave ----------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 40], ids=["before its body", "mid-upload"])
def test_a_caller_leaves_during_an_upload(dev: Streams, sent: int) -> None:
    """The invocation is canceled within a second, and nothing was answered (row E24)."""
    with RawClient(dev.port) as client:
        client.begin("POST", f"{AT}/count?m=left-upload-{sent}", "content-length: 100")
        client.send(b"x" * sent)
    event = dev.request(f"m=left-upload-{sent}", within_s=1)
    assert (event["status"], event["outcome"]) == (0, "canceled")


def test_a_caller_leaves_before_the_answer(dev: Streams) -> None:
    """A guest that never answers is ended when nobody waits any more (row E24)."""
    with RawClient(dev.port) as client:
        client.begin("GET", f"{AT}/never?m=left-waiting")
    event = dev.request("m=left-waiting", within_s=1)
    assert (event["status"], event["outcome"]) == (0, "canceled")


def test_a_caller_leaves_during_a_download(dev: Streams) -> None:
    """The guest stops making what nobody reads, and can tell (row E24)."""
    with RawClient(dev.port) as client:
        client.begin("GET", f"{AT}/download?bytes={64 * MIB}&m=left-download")
        next(client.pieces(client.head()[1]))
        client.vanish()
    assert dev.request("m=left-download", within_s=1)["outcome"] == "canceled"
    assert dev.line("m=left-download", "download cancelled")[1] > 0


def test_a_caller_leaves_while_the_guest_is_silent(dev: Streams) -> None:
    """After a first chunk and then nothing, leaving cancels the guest's stream (row E24)."""
    with RawClient(dev.port) as client:
        client.begin("GET", f"{AT}/hang-after-first-chunk?m=left-silence")
        assert next(client.pieces(client.head()[1])) == b"first\n"
    assert dev.request("m=left-silence", within_s=1)["outcome"] == "canceled"
    assert dev.line("m=left-silence", "hang cancelled")


def test_a_caller_leaves_idle_or_in_a_head(dev: Streams) -> None:
    """Connections without a whole request start nothing and disturb nobody."""
    head = f"GET {AT}/?m=half-a-head HTTP/1.1\r\nhost: 127.0.0.1\r\n".encode()
    for data in (b"", head[:10], head):
        with RawClient(dev.port) as client:
            client.send(data)
    assert dev.get(f"{AT}/?m=after-idle").status == 200
    dev.request("m=after-idle")
    assert [e for e in dev.events if "m=half-a-head" in e.get("path", "")] == []


# --- slow ends -------------------------------------------------------------------------------


def test_a_slow_reader_holds_the_guest_back(dev: Streams) -> None:
    """What is not read is not made: our memory stays flat (row E22)."""
    before = dev.memory_bytes()
    with RawClient(dev.port, buffer_bytes=65536) as client:
        client.begin("GET", f"/fn/local/large/download?bytes={256 * MIB}&m=slow-reader")
        pieces = client.pieces(client.head()[1])
        for _ in range(5):
            next(pieces)
            pause(0.05, "a slow reader")
    left = dev.line("m=slow-reader", "download cancelled")[1]
    assert left > 240 * MIB
    assert dev.memory_bytes() - before < 8 * MIB


def test_a_caller_that_never_reads_is_cut_off(dev: Streams) -> None:
    """After `idle_ms` in which it took nothing its connection is reset (row A7)."""
    with RawClient(dev.port, buffer_bytes=65536) as client:
        client.begin("GET", f"/fn/local/impatient/download?bytes={64 * MIB}&m=never-reads")
        pieces = client.pieces(client.head()[1])
        next(pieces)
        assert dev.request("m=never-reads")["outcome"] == "exceededWallTime"
        with pytest.raises((BrokenTransfer, ConnectionResetError)):
            list(pieces)
    assert dev.line("m=never-reads", "download cancelled")[1] > 32 * MIB


def test_a_slow_guest_holds_the_caller_back(dev: Streams) -> None:
    """What the guest has not read is not taken from the caller: our memory stays flat."""
    before = dev.memory_bytes()
    size = 64 * MIB
    with RawClient(dev.port) as client:
        client.begin("POST", "/fn/local/large/count?wait=400", f"content-length: {size}")
        client.socket.setblocking(False)
        taken = 0
        ends = time.monotonic() + 0.2
        while time.monotonic() < ends:
            try:
                taken += client.socket.send(b"x" * min(MIB, size - taken))
            except BlockingIOError:
                pause(0.005, "the kernel takes no more")
        assert taken < 32 * MIB  # the kernel's buffers on the way, and little of ours
        client.socket.settimeout(10)
        client.send(b"x" * (size - taken))
        assert json.loads(client.answer().body)["bytes"] == size
    assert dev.memory_bytes() - before < 8 * MIB


def test_a_slow_caller_is_not_too_late(dev: Streams) -> None:
    """While a body is coming the guest's first byte is not due: 0.6 s pass 400 ms (limits)."""
    with RawClient(dev.port) as client:
        client.begin("POST", "/fn/local/impatient/count", "transfer-encoding: chunked")
        for _ in range(6):
            client.chunk(b"piece")
            pause(0.1, "a slow caller")
        client.chunk(b"")
        assert json.loads(client.answer().body)["bytes"] == 30


# --- bodies cut short ------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("framing", ["content-length: 1000", "transfer-encoding: chunked"])
def test_a_body_cut_short_rejects(dev: Streams, framing: str, end: str) -> None:
    """The guest's body promise rejects and never resolves short (row A9)."""
    mark = f"m=cut-{end}-{framing[0]}"
    with RawClient(dev.port) as client:
        client.begin("POST", f"/fn/local/body-fate/?{mark}", framing)
        client.chunk(b"a" * 100) if "chunked" in framing else client.send(b"a" * 100)
        pause(0.03, "the guest is reading when the end comes")
        if end == "RST":
            client.vanish()
    assert dev.line(mark, "body ")[0] == "body rejected with"
    event = dev.request(mark)
    assert (event["status"], event["outcome"]) == (0, "canceled")


def test_a_bad_chunk_rejects(dev: Streams) -> None:
    """A chunk that is none cuts the body off: 400 and close, and the guest's promise rejects."""
    with RawClient(dev.port) as client:
        client.begin("POST", "/fn/local/body-fate/?m=bad-chunk", "transfer-encoding: chunked")
        client.chunk(b"a" * 100)
        pause(0.03, "the guest is reading when it comes")
        client.send(b"zz\r\n")
        assert client.answer().status == 400
        assert client.ended()
    assert dev.line("m=bad-chunk", "body ")[0] == "body rejected with"


def test_a_whole_body_resolves(dev: Streams) -> None:
    """The other side of the coin: exactly what was sent."""
    with RawClient(dev.port) as client:
        assert client.ask("POST", "/fn/local/body-fate/?m=whole", body=b"a" * 1000).status == 200
    assert dev.line("m=whole", "body ") == ["body resolved with", 1000]


# --- answers cut short -----------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "&length"], ids=["chunked", "content-length"])
def test_an_error_in_mid_stream_is_no_clean_end(dev: Streams, query: str) -> None:
    """The caller sees a broken transfer after what was sent, never an end (row E30)."""
    mark = f"m=mid-stream{query}"
    with RawClient(dev.port) as client:
        client.begin("GET", f"{AT}/error-mid-stream?{mark}")
        pieces = client.pieces(client.head()[1])
        assert next(pieces) == b"before the fault\n"
        with pytest.raises(BrokenTransfer):
            next(pieces)
    assert dev.request(mark)["outcome"] == "responseStreamDisconnected"


def test_an_engine_that_dies_in_mid_stream_is_no_clean_end(dev: Streams) -> None:
    """A broken transfer; a retry works within half a second (row E30)."""
    with RawClient(dev.port) as client:
        client.begin("GET", "/fn/local/victim/slow?chunks=1000&ms=5&m=died")
        pieces = client.pieces(client.head()[1])
        for _ in range(3):
            next(pieces)
        dev.engine_of("victim").kill()
        with pytest.raises(BrokenTransfer):
            list(pieces)
    began = time.monotonic()
    assert dev.get("/fn/local/victim/").status == 200
    assert time.monotonic() - began < 0.5
    assert dev.request("m=died")["outcome"] == "responseStreamDisconnected"


def test_a_guest_that_falls_silent_is_cut_off(dev: Streams) -> None:
    """After `idle_ms` without a chunk the transfer is broken off (row E22)."""
    began = time.monotonic()
    with RawClient(dev.port) as client:
        client.begin("GET", "/fn/local/impatient/hang-after-first-chunk?m=silent")
        pieces = client.pieces(client.head()[1])
        assert next(pieces) == b"first\n"
        with pytest.raises(BrokenTransfer):
            next(pieces)
    assert 0.25 < time.monotonic() - began < 1.5
    assert dev.line("m=silent", "hang cancelled")
    assert dev.request("m=silent")["outcome"] == "exceededWallTime"


def test_a_steady_guest_is_not_cut_off(dev: Streams) -> None:
    """Chunks 100 ms apart pass an `idle_ms` of 300 for as long as they come."""
    with RawClient(dev.port) as client:
        answer = client.ask("GET", "/fn/local/impatient/slow?chunks=6&ms=100")
    assert answer.body.count(b"chunk") == 6


@pytest.mark.parametrize("route", ["never", "stuck"])
def test_a_guest_that_never_answers_gets_504(dev: Streams, route: str) -> None:
    """After `first_byte_ms`, also where nothing could ever settle the promise (row E23)."""
    with RawClient(dev.port) as client:
        answer = client.ask("GET", f"/fn/local/impatient/{route}?m=504-{route}")
    assert answer.status == 504
    assert json.loads(answer.body)["error"]["code"] == "function_timeout"
    assert dev.request(f"m=504-{route}")["outcome"] == "exceededWallTime"


# --- a crash ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_kills_its_engine_is_run_once(dev: Streams, method: str) -> None:
    """502 `upstream_failure`, the reason in the log, one death; the next request is served."""
    before = sum("engine process" in line for line in dev.talk)
    with RawClient(dev.port) as client:
        answer = client.ask(method, "/fn/local/crash/crash", body=b"x" * (method == "POST"))
        assert answer.status == 502
        assert json.loads(answer.body)["error"]["code"] == "upstream_failure"
        assert client.ask("GET", "/fn/local/crash/").status == 200
    deaths = [line for line in dev.talk if "engine process" in line and "signal" in line]
    assert "Fatal" in deaths[-1]
    assert sum("engine process" in line for line in dev.talk) - before <= 2  # log, and its echo


# --- what a guest can do wrong ---------------------------------------------------------------


THROWN = [
    "error",
    "string",
    "null",
    "undefined",
    "number",
    "symbol",
    "proxy",
    "cyclic",
    "cause",
    "cyclic-cause",
    "huge",
    "hostile-stack",
    "stack-object",
    "newline",
    "unicode",
]


@pytest.mark.parametrize("route", ["throw", "reject"])
@pytest.mark.parametrize("kind", THROWN)
def test_whatever_is_thrown_becomes_the_envelope(dev: Streams, route: str, kind: str) -> None:
    """500 `unhandled_exception`, at most 16 KiB of it, and an event (row E25)."""
    mark = f"m={route}-{kind}"
    answer = dev.get(f"{AT}/{route}?kind={kind}&{mark}")
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (500, "unhandled_exception")
    assert len(answer.body) < 16 * 1024 + 512
    event = dev.request(mark)
    assert event["outcome"] == "exception"
    assert len(json.dumps(event["exceptions"])) < 40 * 1024
    assert len(event["exceptions"]) == 1


@pytest.mark.parametrize(
    "kind",
    ["string", "null", "number", "object", "proxy", "hostile-proxy", "hostile-thenable", "used"],
)
def test_whatever_is_no_response_becomes_the_envelope(dev: Streams, kind: str) -> None:
    """500 `unhandled_exception` for everything that is no Response, or a used one (row E23)."""
    answer = dev.get(f"{AT}/bad-response?kind={kind}&m=bad-{kind}")
    assert answer.status == 500
    assert json.loads(answer.body)["error"]["code"] == "unhandled_exception"
    assert dev.request(f"m=bad-{kind}")["outcome"] == "exception"


def test_no_return_is_no_response(dev: Streams) -> None:
    """A handler without a return statement is told what it did (row E23)."""
    error = json.loads(dev.get(f"{AT}/undefined").body)["error"]
    assert error["message"] == "the fetch handler did not return a Response"


@pytest.mark.parametrize("code", ["0", "99", "101", "199", "600", "1000", "NaN", "-1"])
def test_a_status_that_is_none_becomes_the_envelope(client: RawClient, code: str) -> None:
    """What the Workers API lets nobody say is a throw, and one answer on the wire (row A11)."""
    answer = client.ask("GET", f"{AT}/status?code={code}")
    assert answer.status == 500
    assert json.loads(answer.body)["error"]["code"] == "unhandled_exception"
    assert client.ask("GET", f"{AT}/").status == 200


@pytest.mark.parametrize("text", ["a%0D%0Ax-forged:%201", "a%0Ax-forged:%201", "a%00b"])
def test_a_line_break_in_a_header_goes_nowhere(client: RawClient, text: str) -> None:
    """A function cannot write a header line that it has not named (row A11)."""
    answer = client.ask("GET", f"{AT}/redirect?to=/{text}")
    assert answer.header("x-forged") is None
    assert client.ask("GET", f"{AT}/").status == 200


def test_an_endless_head_of_an_answer_is_refused(client: RawClient) -> None:
    """800 KB of response headers pass the wire's limit: 502, and the function serves on (A11)."""
    answer = client.ask("GET", f"{AT}/many-headers?count=100&bytes=8000&m=endless-head")
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["code"] == "upstream_failure"
    assert client.ask("GET", f"{AT}/many-headers?count=100&bytes=100").status == 200


def test_a_thenable_is_awaited(dev: Streams) -> None:
    """What behaves like a promise is one."""
    assert dev.get(f"{AT}/bad-response?kind=thenable").body == b"from a thenable\n"


# --- framing ---------------------------------------------------------------------------------


def test_a_length_stays_a_length(client: RawClient) -> None:
    """Content-Length in and out is not turned into chunks."""
    answer = client.ask("POST", f"{AT}/text", body=b"twelve bytes")
    assert json.loads(answer.body) == {"text": "twelve bytes"}
    assert answer.header("transfer-encoding") is None
    assert answer.header("content-length") == str(len(answer.body))


def test_chunks_stay_chunks(client: RawClient) -> None:
    """A chunked body is echoed as one, each chunk as it comes."""
    client.begin("POST", f"{AT}/echo", "transfer-encoding: chunked")
    client.chunk(b"first")
    status, headers = client.head()
    assert (status, dict(headers)["transfer-encoding"]) == (200, "chunked")
    pieces = client.pieces(headers)
    assert next(pieces) == b"first"  # before the second was sent
    client.chunk(b"second")
    client.chunk(b"")
    assert b"".join(pieces) == b"second"


def test_trailers_are_ignored(client: RawClient) -> None:
    """Fields behind a chunked body are no headers, whatever they are called (finding 3b)."""
    client.begin("POST", f"{AT}/headers", "transfer-encoding: chunked", "trailer: x-late")
    client.send(b"3\r\nabc\r\n0\r\nx-late: 1\r\nX-Amba-User-Id: evil\r\nHost: evil\r\n\r\n")
    seen: dict[str, Any] = json.loads(client.answer().body)
    names = [name for name, _ in seen["headers"]]
    assert "x-late" not in names
    assert dict(seen["headers"])["x-amba-user-id"] == ""
    assert "evil" not in json.dumps(seen)
    assert client.ask("GET", f"{AT}/").status == 200


def test_a_thousand_requests_use_one_connection(client: RawClient) -> None:
    """Keep-alive holds through bodies, streams, errors and HEAD, in any order."""
    for n in range(1000):
        match n % 5:
            case 0:
                assert client.ask("GET", f"{AT}/").status == 200
            case 1:
                assert client.ask("POST", f"{AT}/text", body=b"x" * n).status == 200
            case 2:
                assert client.ask("HEAD", f"{AT}/head").status == 200
            case 3:
                assert client.ask("GET", f"{AT}/sse?n=2").status == 200
            case _:
                assert client.ask("GET", f"{AT}/throw").status == 500


def test_two_cookies_stay_two(client: RawClient) -> None:
    """Set-Cookie lines are never joined (RFC 6265 section 3)."""
    assert client.ask("GET", f"{AT}/set-cookie").all("set-cookie") == [
        "a=1; Path=/",
        "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
    ]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_passes_through(client: RawClient, code: int) -> None:
    """Nobody follows it on the way."""
    answer = client.ask("GET", f"{AT}/redirect?code={code}&to=http://example.com/a%3Fb")
    assert (answer.status, answer.header("location")) == (code, "http://example.com/a?b")


@pytest.mark.parametrize("code", [204, 205, 304])
def test_statuses_without_a_body(client: RawClient, code: int) -> None:
    """They have none on the wire, and the connection serves on (row A11)."""
    answer = client.ask("GET", f"{AT}/status?code={code}")
    assert (answer.status, answer.body) == (code, b"")
    assert answer.header("transfer-encoding") is None
    if code == 204:
        assert answer.header("content-length") is None
    assert client.ask("GET", f"{AT}/").status == 200


@pytest.mark.parametrize("route", ["null-body", "empty-body"])
def test_an_empty_body_is_an_empty_body(client: RawClient, route: str) -> None:
    """No body and an empty one both have length 0."""
    answer = client.ask("GET", f"{AT}/{route}")
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "0")


def test_hop_by_hop_headers_of_a_guest_stay_with_us(client: RawClient) -> None:
    """A function has no say over the connection; its own headers pass (row A11)."""
    answer = client.ask("GET", f"{AT}/reserved-headers")
    assert answer.header("keep-alive") is None
    assert answer.header("x-kept") == "yes"
    assert client.ask("GET", f"{AT}/").status == 200


def test_our_own_headers_never_leave(client: RawClient) -> None:
    """Console lines ride on a header that callers do not see; nothing of ours is left."""
    names = [n for n, _ in client.ask("GET", f"{AT}/log-mark?mark=seen&ms=1").headers]
    assert not [n for n in names if n.startswith("amba")]


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    """Fifty at once, slow ones among them, come back one after another (row A6)."""
    for n in range(50):
        client.begin("GET", f"{AT}/log-mark?mark={n}&ms={(50 - n) % 7}")
    assert [int(client.answer().body) for _ in range(50)] == list(range(50))


def test_http_1_0_ends_a_stream_by_closing(dev: Streams) -> None:
    """A stream for an HTTP/1.0 caller has no chunks: it ends when the connection does."""
    with RawClient(dev.port) as client:
        client.send(f"GET {AT}/slow?chunks=2&ms=1 HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n".encode())
        status, headers = client.head()
        assert (status, dict(headers).get("transfer-encoding")) == (200, None)
        assert client.rest() == b"chunk 1\nchunk 2\n"


# --- console lines ---------------------------------------------------------------------------


def test_concurrent_console_lines_are_not_mixed_up(dev: Streams) -> None:
    """Each invocation's event has its own lines, whatever ran beside it (engines.md 3)."""
    marks = [f"mark-{n}-" for n in range(24)]

    def ask(mark: str) -> None:
        assert dev.get(f"{AT}/log-mark?mark={mark}&ms=20").body == mark.encode()

    threads = [threading.Thread(target=ask, args=(mark,)) for mark in marks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mark in marks:
        lines = [log["Message"] for log in dev.request(f"mark={mark}")["logs"]]
        assert lines == [["first", mark], ["second", mark]]


def test_work_after_the_answer_is_heard(dev: Streams) -> None:
    """Lines and the exception of `waitUntil` come after the answer, to the same invocation."""
    began = time.monotonic()
    assert dev.get(f"{AT}/wait-until?ms=150&m=later").status == 200
    assert time.monotonic() - began < 0.14
    assert dev.line("m=later", "logged after the response")
    assert dev.get(f"{AT}/wait-until?ms=1&fail&m=late-fault").status == 200
    assert dev.exceptions("m=late-fault") == ["failed after the response"]


# --- sizes -----------------------------------------------------------------------------------


def repeated(size: int) -> Iterator[bytes]:
    """The bytes that /download makes: byte i is i % 251."""
    while size >= len(PIECE):
        yield PIECE
        size -= len(PIECE)
    yield PIECE[:size]


def digest(size: int) -> str:
    whole = hashlib.sha256()
    for piece in repeated(size):
        whole.update(piece)
    return whole.hexdigest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_64_mib_arrive_unharmed(dev: Streams, framing: str) -> None:
    """An upload's SHA-256, as the guest computes it, is that of what was sent."""
    size = 64 * MIB
    with RawClient(dev.port, timeout_s=20) as client:
        if framing == "length":
            client.begin("POST", f"{AT}/digest", f"content-length: {size}")
            for piece in repeated(size):
                client.send(piece)
        else:
            client.begin("POST", f"{AT}/digest", "transfer-encoding: chunked")
            for piece in repeated(size):
                client.chunk(piece)
            client.chunk(b"")
        assert client.answer().body.decode() == digest(size)


@pytest.mark.parametrize("query", ["", "&length"], ids=["chunked", "length"])
def test_64_mib_leave_unharmed(dev: Streams, query: str) -> None:
    """A download's SHA-256 is that of what the guest made."""
    size = 64 * MIB
    seen = hashlib.sha256()
    with RawClient(dev.port, timeout_s=20) as client:
        client.begin("GET", f"{AT}/download?bytes={size}{query}")
        for piece in client.pieces(client.head()[1]):
            seen.update(piece)
    assert seen.hexdigest() == digest(size)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_256_mib_each_way_leave_memory_flat(dev: Streams, framing: str) -> None:
    """Our resident memory grows by less than 32 MiB (Must show 8, a quarter of it)."""
    size = 256 * MIB
    before = dev.memory_bytes()
    most = before
    with RawClient(dev.port, timeout_s=30) as client:
        if framing == "length":
            client.begin("POST", "/fn/local/large/count", f"content-length: {size}")
            for _ in range(size // MIB):
                client.send(b"x" * MIB)
        else:
            client.begin("POST", "/fn/local/large/count", "transfer-encoding: chunked")
            for _ in range(size // MIB):
                client.chunk(b"x" * MIB)
            client.chunk(b"")
        assert json.loads(client.answer().body)["bytes"] == size
        most = max(most, dev.memory_bytes())
        length = "&length" if framing == "length" else ""
        client.begin("GET", f"/fn/local/large/download?bytes={size}{length}")
        assert sum(len(piece) for piece in client.pieces(client.head()[1])) == size
        most = max(most, dev.memory_bytes())
    assert most - before < 32 * MIB


def test_a_body_past_the_limit_by_its_length_gets_413(dev: Streams) -> None:
    """At once, before a byte of it; the function is not invoked (contract A.7, row A8)."""
    with RawClient(dev.port) as client:
        client.begin("POST", "/fn/local/small/count?m=cl413", f"content-length: {MIB + 1}")
        answer = client.answer()
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert error["details"]["bytes_max"] == MIB


def test_a_body_past_the_limit_by_its_chunks_gets_413(dev: Streams) -> None:
    """As soon as it has passed it; the guest's work ends (row A8)."""
    with RawClient(dev.port) as client:
        client.begin("POST", "/fn/local/small/count?m=ch413", "transfer-encoding: chunked")
        for _ in range(17):
            client.chunk(b"x" * 65536)
        answer = client.answer()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert dev.request("m=ch413")["outcome"] == "canceled"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_at_the_limit_passes(dev: Streams, chunked: bool) -> None:
    """Exactly `request_body_mib` is inside (row A8)."""
    with RawClient(dev.port) as client:
        if chunked:
            client.begin("POST", "/fn/local/small/count", "transfer-encoding: chunked")
            for _ in range(16):
                client.chunk(b"x" * 65536)
            client.chunk(b"")
            answer = client.answer()
        else:
            answer = client.ask("POST", "/fn/local/small/count", body=b"x" * MIB)
    assert json.loads(answer.body)["bytes"] == MIB
