"""What every test of the seam needs: an engine, isolates on it, and requests to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from amba_bundler.build import build
from amba_runtime import wire
from amba_runtime.callers import Callers
from amba_runtime.engine.base import Engine, Exchange, Isolate, Surroundings
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.engine.workerd.isolate import WorkerdIsolate
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Ended, Tell
from amba_runtime.wire import Handler, Headers, Request, Response

ROOT = Path(__file__).parents[3]
GUESTS = ROOT / "tests" / "guests"
FIXTURES = ROOT / "fixtures"
MARK = "0123456789abcdef"
HOST = (b"host", b"local.fn.localhost:8787")


@cache
def bundled(entry: Path) -> Bundle:
    """A guest's bundle, as the product would make it."""
    return asyncio.run(build(entry)).bundle


def guest(name: str) -> Bundle:
    """The bundle of tests/guests/NAME, a folder or a file in one."""
    path = GUESTS / name
    return bundled(next(path.glob("index.*")) if path.is_dir() else path)


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer, with what the shim said of it."""

    status: int
    headers: Headers
    body: bytes
    tell: Tell | None
    threw: bool

    def all(self, name: bytes) -> list[bytes]:
        return [value for field_, value in self.headers if field_ == name]


@dataclass(slots=True)
class Told:
    """What an isolate told its surroundings."""

    late: list[tuple[str, Tell]] = field(default_factory=lambda: list[tuple[str, Tell]]())
    deaths: list[Ended] = field(default_factory=lambda: list[Ended]())
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def on_tell(self, label: str, tell: Tell) -> None:
        self.late.append((label, tell))
        self.news.set()

    def on_death(self, ended: Ended) -> None:
        self.deaths.append(ended)
        self.news.set()

    async def until(self, there: Callable[[], Any], *, within_s: float = 5) -> Any:
        """The first true value of `there`, looked for again at each piece of news."""
        async with asyncio.timeout(within_s):
            while not (value := there()):
                self.news.clear()
                await self.news.wait()
        return value

    def lines(self, label: str) -> list[list[Any]]:
        """Messages of the late lines under a label."""
        return [line.message for at, tell in self.late if at == label for line in tell.logs]


async def nowhere(request: Request) -> Response:
    """Egress for guests that fetch nothing."""
    return Response(403)


class Lab:
    """An engine and the isolates that a test starts on it; `told` has what they said."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.told = Told()
        self.callers = Callers()

    async def start(
        self,
        bundle: Bundle | str,
        *,
        name: str = "guest",
        env: Sequence[tuple[str, str]] = (),
        storage: Handler | None = None,
        database: Handler | None = None,
        egress: Handler = nowhere,
        limits: Mapping[str, int] | None = None,
    ) -> Isolate:
        """An isolate, not described yet. A text is the source of a module."""
        if isinstance(bundle, str):
            bundle = Bundle.of(bundle.encode())
        manifest = Manifest(
            ProjectId("p-1"),
            FunctionName(name),
            1,
            tuple(env),
            storage is not None,
            limits=FunctionLimits.hosted().override(limits or {}),
        )
        surroundings = Surroundings(
            *(egress, storage, self.told.on_tell, self.told.on_death, MARK, self.callers),
            database=database,
        )
        return await self.engine.start(manifest, bundle, surroundings)

    async def serving(self, bundle: Bundle | str, **facts: Any) -> Isolate:
        """An isolate that has described itself."""
        isolate = await self.start(bundle, **facts)
        await isolate.describe()
        return isolate


@contextlib.asynccontextmanager
async def workerd_lab() -> AsyncGenerator[Lab]:
    """A lab on the real engine; nothing of it is left afterwards."""
    engine = WorkerdEngine(program=find_workerd())
    try:
        yield Lab(engine)
    finally:
        await engine.close()


def on_workerd(test: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    """Run a test's body with a lab of its own."""

    async def main() -> None:
        async with asyncio.timeout(20), workerd_lab() as lab:
            await test(lab)

    asyncio.run(main())


def pid_of(isolate: Isolate) -> int:
    """Of an isolate of the real engine."""
    assert isinstance(isolate, WorkerdIsolate)
    return isolate.pid


def folder_of(isolate: Isolate) -> Path:
    """The private folder of an isolate of the real engine."""
    assert isinstance(isolate, WorkerdIsolate)
    return isolate.folder


def spawner_of(isolate: Isolate) -> psutil.Process:
    """The process that started it; bubblewrap may stand between."""
    parent = psutil.Process(pid_of(isolate)).parent()
    assert parent is not None
    above = parent.parent()
    assert above is not None
    return above if parent.name() == "bwrap" else parent


def begin(
    exchange: Exchange,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    length: int | None = 0,
    request_id: str = "r-1",
) -> None:
    """Send a request head as the dispatcher would."""
    fields: Headers = [HOST, (b"x-amba-request-id", request_id.encode())]
    fields += [(n.encode(), v.encode("latin-1")) for n, v in (headers or {}).items()]
    exchange.begin(method.encode(), target.encode(), wire.render(fields), length)


async def rest(exchange: Exchange) -> bytes:
    """The body to its end. Raises WireError when it breaks off."""
    parts: list[bytes] = []
    while data := await exchange.read():
        parts.append(data)
    return b"".join(parts)


async def answer(exchange: Exchange) -> Answer:
    """What comes back, read to its end; the exchange is released."""
    await exchange.head()
    body = await rest(exchange)
    tell: Tell | None = None
    threw = False
    fields: Headers = []
    for name, value in exchange.headers:
        if name == b"amba-run-" + MARK.encode():
            tell = Tell.parse(value)
            threw = tell.threw
        else:
            fields.append((name, value))
    status = exchange.status
    exchange.release()
    return Answer(status, fields, body, tell, threw)


async def ask(
    isolate: Isolate,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    request_id: str = "r-1",
) -> Answer:
    """One request with a body at hand."""
    exchange = await isolate.exchange()
    begin(
        exchange,
        target,
        method=method,
        headers=headers,
        length=len(body),
        request_id=request_id,
    )
    if body:
        exchange.write(body)
        exchange.end()
    return await answer(exchange)
