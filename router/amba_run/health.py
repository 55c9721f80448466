"""What `amba-run doctor` looks at: each check runs the thing and says how to mend it.

Source: peers.md pains 14 and 31; issue "Serve a function" item 4.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from amba_run.config import Environment
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.errors import AmbaRunError, UserError
from amba_runtime.sandbox import STRONGEST, Sandbox
from amba_runtime.sandbox.cgroups import Cgroups

PROC = Path("/proc")
_VERSION_DATE = re.compile(r"workerd (\d{4}-\d{2}-\d{2})")


class State(StrEnum):
    """`FAIL`: something will not work. `WARN`: something is weaker or odder than it could be."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `fix` is "" where there is nothing to mend."""

    name: str
    state: State
    detail: str
    fix: str = ""


def examine(environment: Environment, clock: Clock) -> Iterator[Finding]:
    """Run every check in turn; none raises."""
    yield python()
    yield libc()
    yield from workerd(environment, clock)
    yield esbuild(environment)
    yield name_resolution("x.localhost", addresses)
    yield ipv6_loopback()
    yield open_files()
    yield temporary_folder(Path(tempfile.gettempdir()))
    yield watching()
    if sys.platform == "linux":
        yield from inotify(PROC / "sys/fs/inotify")


def python() -> Finding:
    """The interpreter that runs us."""
    detail = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    return Finding("python", State.OK, detail)  # an older one does not get as far as this


def libc() -> Finding:
    """The C library: the engine is built for glibc."""
    name, version = platform.libc_ver()
    if sys.platform != "linux":
        return Finding("libc", State.OK, platform.platform())
    if name != "glibc":
        fix = "use an image with glibc (Debian, Ubuntu, Fedora), not Alpine"
        return Finding("libc", State.FAIL, "not glibc; the engine is built for it", fix)
    return Finding("libc", State.OK, f"glibc {version}")


def workerd(environment: Environment, clock: Clock) -> Iterator[Finding]:
    """The engine: that it runs, how old it is, that it serves a function, and in which walls."""
    from amba_runtime.engine.workerd.engine import find_workerd

    try:
        path = find_workerd(str(environment.workerd) if environment.workerd else None)
    except UserError as error:
        yield Finding("workerd", State.FAIL, error.message, error.hint)
        yield _UNTRIED
        return
    version, fault = _version_of(path)
    if fault:
        yield Finding("workerd", State.FAIL, fault, _program_fix("AMBA_RUN_WORKERD", environment))
        yield _UNTRIED
        return
    yield engine_age(version, path, clock)
    yield from _engine_serves(path, clock)


def engine_age(version: str, path: Path, clock: Clock) -> Finding:
    """An engine's version is its date: an old one lacks fixes of its sandbox."""
    match = _VERSION_DATE.match(version)
    detail = f"{version} ({path})"
    if match is None:
        return Finding("workerd", State.WARN, f"{detail}: no version we know", "upgrade amba-run")
    built = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    days = int((clock.time_s() - built.timestamp()) // 86400)
    if days > limits.ENGINE_OLD_DAYS.value:
        fix = "pip install --upgrade amba-run: a newer engine has fixes of its walls"
        return Finding("workerd", State.WARN, f"{detail}, {days} days old", fix)
    return Finding("workerd", State.OK, detail)


def _engine_serves(path: Path, clock: Clock) -> Iterator[Finding]:
    import asyncio

    from amba_runtime.engine.base import StartFailed, Surroundings
    from amba_runtime.engine.workerd.engine import WorkerdEngine
    from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
    from amba_runtime.wire import Request, Response

    async def nothing(_request: Request) -> Response:
        return Response(404)

    engine = WorkerdEngine(program=path)
    memory: list[Finding] = []

    async def start() -> float:
        around = Surroundings(nothing, None, lambda _label, _tell: None, lambda _reason: None)
        manifest = Manifest(ProjectId("doctor"), FunctionName("doctor"), 1, (), False, "2026-01-01")
        code = b"export default { fetch() { return new Response('well') } };"
        try:
            await engine.open()
            memory.append(memory_cap(engine.cgroups))
            began_s = clock.monotonic_s()
            isolate = await engine.start(manifest, Bundle.of(code), around)
            await isolate.describe()
            return clock.monotonic_s() - began_s
        finally:
            await engine.close()

    try:
        seconds = asyncio.run(start())
    except (AmbaRunError, StartFailed, OSError) as error:
        fix = "run `amba-run dev` on one function: the message above says what the system refused"
        yield Finding("engine", State.FAIL, f"no function starts: {error}", fix)
    else:
        yield Finding("engine", State.OK, f"starts a function in {seconds * 1000:.0f} ms")
    yield sandbox(engine.sandbox)
    yield from memory


def esbuild(environment: Environment) -> Finding:
    """The bundler."""
    from amba_bundler.esbuild import find_program

    try:
        path = find_program(environment.esbuild)
    except UserError as error:
        return Finding("esbuild", State.FAIL, error.message, error.hint)
    version, fault = _version_of(path)
    if fault:
        return Finding("esbuild", State.FAIL, fault, _program_fix("AMBA_RUN_ESBUILD", environment))
    return Finding("esbuild", State.OK, f"esbuild {version} ({path})")


def _version_of(program: Path) -> tuple[str, str]:
    """(what it says of itself, "" or what is wrong)."""
    try:
        done = subprocess.run(
            [str(program), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limits.DOCTOR_RUN_S.value,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        return "", f"{program} does not run: {error.strerror or error}"
    except subprocess.TimeoutExpired:
        return "", f"{program} --version said nothing for {limits.DOCTOR_RUN_S.value:g} s"
    said = done.stdout.strip() or done.stderr.strip()
    if done.returncode != 0:
        return "", f"{program} --version ended with {done.returncode}: {said[-300:]}"
    return said.split("\n")[0][:100], ""


def _program_fix(variable: str, environment: Environment) -> str:
    override = environment.workerd if variable == "AMBA_RUN_WORKERD" else environment.esbuild
    if override is not None:
        return f"unset {variable}, or let it name a program that runs here"
    return "pip install --force-reinstall amba-run, with the wheel made for this machine"


_UNTRIED = Finding(
    "sandbox",
    State.WARN,
    "not tried: there is no engine to try it with",
    "mend workerd first: see above",
)


def sandbox(walls: Sandbox) -> Finding:
    """How strong the walls around a function are, said bluntly (reliability.md 4.2)."""
    why = "".join(f"; {note}" for note in walls.notes)
    detail = f"tier {walls.tier}: {walls.description}{why}"
    if walls.tier >= STRONGEST:
        return Finding("sandbox", State.OK, detail)
    if walls.tier < 2:
        detail += ". The engine alone is not a hardened sandbox: run only code that you trust"
    else:
        detail += ". Enough for dev and check; a node takes tier 3"
    fix = walls.fix or "none is known; run it on a Linux machine with user namespaces for more"
    return Finding("sandbox", State.WARN, detail, fix)


def memory_cap(cgroups: Cgroups) -> Finding:
    """Who ends a function that takes too much memory: the kernel, or our watchdog's looks."""
    if "memory" in cgroups.controllers:
        detail = f"the kernel caps each function (control groups, version {cgroups.version})"
        detail += f", but not by all of them: {cgroups.note}" if cgroups.note else ""
        return Finding("memory", State.OK, detail)
    fix = "give it a group of its own: systemd-run --scope -p Delegate=yes, or a unit with it"
    detail = (
        "no kernel caps a function: a watchdog looks every few milliseconds, also with --sandbox "
        f"strict, and can be late by as much: {cgroups.note}"
    )
    return Finding("memory", State.WARN, detail, fix)


def addresses(name: str) -> list[str]:
    """What this machine's resolver says of a name. Raises OSError."""
    return [str(answer[4][0]) for answer in socket.getaddrinfo(name, 80)]


def name_resolution(name: str, resolve: Callable[[str], list[str]]) -> Finding:
    """Whether clients here find `SLUG.fn.localhost`."""
    fix = "use the /fn/SLUG/NAME addresses, or curl --resolve, or a resolver with RFC 6761"
    try:
        found = sorted(set(resolve(name)))
    except OSError as error:
        return Finding("dns", State.WARN, f"{name} does not resolve: {error}", fix)
    if not found or any(not (a.startswith("127.") or a == "::1") for a in found):
        detail = f"{name} resolves to {', '.join(found) or 'nothing'}, which is not this machine"
        return Finding("dns", State.WARN, detail, fix)
    return Finding("dns", State.OK, f"{name} is {', '.join(found)}")


def ipv6_loopback() -> Finding:
    """Whether ::1 can be listened on: browsers try it first for localhost."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
            listener.bind(("::1", 0))
    except OSError as error:
        fix = "none is needed: 127.0.0.1 is served; in Docker, give the container IPv6"
        return Finding("ipv6", State.WARN, f"::1 cannot be listened on: {error.strerror}", fix)
    return Finding("ipv6", State.OK, "::1 can be listened on")


def open_files() -> Finding:
    """How many files and sockets a server may hold."""
    try:
        import resource
    except ImportError:
        return Finding("files", State.OK, "this system has no such limit")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_open_files(soft, hard, unlimited=resource.RLIM_INFINITY)


def judge_open_files(soft: int, hard: int, *, unlimited: int) -> Finding:
    """`dev` raises the soft limit by itself, up to the hard one."""
    most = "unlimited" if hard == unlimited else str(hard)
    detail = f"{soft} open files, {most} at most"
    if hard != unlimited and hard <= limits.OPEN_FILES_LOW.value:
        fix = "raise the hard limit: ulimit -Hn 65536, or docker run --ulimit nofile=65536"
        return Finding("files", State.WARN, f"{detail}: about {hard // 2} clients at once", fix)
    return Finding("files", State.OK, detail)


def temporary_folder(folder: Path) -> Finding:
    """Where private sockets live: writable, and short enough for a Unix socket's path."""
    longest = len(os.fsencode(folder)) + len("/amba-12345678/12345678/in/egress.sock")
    if longest > limits.UNIX_PATH_BYTES.value:
        detail = f"{folder} is too long for a Unix socket in it"
        return Finding("tmp", State.FAIL, detail, "set TMPDIR to a short path, such as /tmp")
    try:
        with tempfile.TemporaryDirectory(prefix="amba-", dir=folder):
            pass
    except OSError as error:
        detail = f"{folder} cannot be written to: {error.strerror}"
        return Finding("tmp", State.FAIL, detail, "set TMPDIR to a folder you may write to")
    return Finding("tmp", State.OK, str(folder))


def watching() -> Finding:
    """Whether a saved file is noticed: write one, wait for the system to tell."""
    import threading

    from watchfiles._rust_notify import RustNotify

    fix = "raise the inotify limits below; on a network or VM share, work on a local disk"
    try:
        with tempfile.TemporaryDirectory(prefix="amba-") as folder:
            notify = RustNotify([folder], False, False, 300, False, False)
            with notify:
                Path(folder, "saved").write_text("now")
                told = notify.watch(1, 1, 2000, threading.Event())
    except (OSError, RuntimeError) as error:
        return Finding("watching", State.FAIL, f"folders cannot be watched: {error}", fix)
    if not isinstance(told, set):
        return Finding("watching", State.FAIL, "a saved file is not noticed", fix)
    return Finding("watching", State.OK, "a saved file is noticed")


def inotify(folder: Path) -> Iterator[Finding]:
    """The limits of Linux on watching files, shared by all programs of a user."""
    for name, least in (
        ("max_user_watches", limits.INOTIFY_WATCHES.value),
        ("max_user_instances", limits.INOTIFY_INSTANCES.value),
    ):
        try:
            value = int((folder / name).read_text())
        except (OSError, ValueError):
            yield Finding("inotify", State.WARN, f"{name} is not told by this system", "")
            continue
        if value < least:
            fix = f"sudo sysctl fs.inotify.{name}={least * 4}"
            yield Finding("inotify", State.WARN, f"{name} is {value}, which is little", fix)
        else:
            yield Finding("inotify", State.OK, f"{name} is {value}")
