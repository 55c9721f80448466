"""`amba-run check`: build and admit without serving, exactly what an upload would be told.

One engine for all, dummy values for every binding, no network (egress refuses), no credentials.
Source: interface.md section 2; issue 3 item 2.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from amba_bundler.build import BuildOptions, Minify, account, build
from amba_bundler.esbuild import Esbuild
from amba_bundler.messages import BuildError, BuildFailed, unresolved
from amba_bundler.report import (
    FunctionReport,
    Growth,
    Report,
    Weights,
    by_package,
    growth_of,
)
from amba_bundler.scan import EsbuildScan
from amba_run.config import ProjectConfig, load_config
from amba_run.discovery import FunctionSource, SourceKind, discover, folder_of
from amba_run.sizes import Size, shown_size
from amba_runtime import limits
from amba_runtime.admission import Scan, admit, inspect, warnings_of
from amba_runtime.engine.base import Description, Engine, Isolate, Surroundings
from amba_runtime.errors import UserCode, UserError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.places import chains_of, words
from amba_runtime.violations import NO_PYTHON, Rejected, Violation, ViolationCode

if TYPE_CHECKING:
    from amba_run.config import Environment
    from amba_runtime import wire
    from amba_runtime.clock import Clock

DUMMY = "dummy"
_BUNDLE_SUFFIXES = (".js", ".mjs")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What is asked for.

    Attributes:
        finished: the paths are bundles; they are judged as they are.
        static: nothing is started.
        max_size: gzip bytes of a bundle; None = the platform's own limit alone.
        max_growth: bytes (absolute) or percent since `against`; None fails on no growth.
        against: sizes of an earlier report.
    """

    paths: tuple[Path, ...]
    finished: bool = False
    static: bool = False
    max_size: int | None = None
    max_growth: Size | None = None
    against: Mapping[str, Weights] | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A bundle that was started to be judged: what it is, and its CPU seconds until then."""

    isolate: Isolate
    description: Description
    cpu_s: float


class Judge:
    """Judges bundles one by one, as the upload does. The caller opens and closes both helpers.

    Args:
        engine: where bundles are started; None judges by the bytes alone.
    """

    def __init__(self, scan: Scan, engine: Engine | None) -> None:
        self._scan = scan
        self._engine = engine

    async def judge(
        self,
        bundle: Bundle,
        *,
        name: str,
        limits_: FunctionLimits,
        storage: bool = True,
        compatibility_date: str | None = None,
        bundle_name: str | None = None,
    ) -> Trial | None:
        """What the bundle is; it does not run any more on return. None without an engine.

        Args:
            bundle_name: what the bundle is called where no source map leads further.

        Raises:
            Rejected: with every violation.
        """
        called = bundle_name or f"{name}.js"
        engine = self._engine
        if engine is None:
            violations = await inspect(bundle, scan=self._scan, name=called)
            if violations:
                raise Rejected(violations)
            return None
        manifest = Manifest(
            ProjectId(DUMMY),
            FunctionName(name),
            1,
            _dummy_env(),
            storage,
            limits=limits_,
        )
        if compatibility_date is not None:
            manifest = replace(manifest, compatibility_date=compatibility_date)
        around = Surroundings(_refuse, _refuse, lambda _label, _tell: None, lambda _reason: None)

        async def start() -> Trial:
            isolate = await engine.start(manifest, bundle, around)
            try:
                description = await isolate.describe()
                return Trial(isolate, description, isolate.cpu_s() or 0.0)
            except BaseException:
                await isolate.close()
                raise

        trial = await admit(
            bundle,
            scan=self._scan,
            start=start,
            description_of=lambda trial: trial.description,
            discard=lambda trial: trial.isolate.close(),
            name=called,
        )
        await trial.isolate.close()
        return trial


async def judge_bundle(
    bundle: Bundle,
    *,
    name: FunctionName,
    esbuild: Esbuild,
    environment: Environment,
    limits_: FunctionLimits,
) -> Description:
    """Judge one bundle, with an engine that is started and ended for it.

    Raises:
        Rejected: with every violation.
        UserError: PROGRAM_MISSING.
    """
    from amba_runtime.engine.auto import choose

    engine = choose("auto", workerd=str(environment.workerd) if environment.workerd else None)
    try:
        trial = await Judge(EsbuildScan(esbuild), engine).judge(bundle, name=name, limits_=limits_)
        assert trial is not None, "there is an engine"
        return trial.description
    finally:
        await engine.close()


def _dummy_env() -> tuple[tuple[str, str], ...]:
    from amba_runtime.bindings.platform import platform_env

    return platform_env(
        api_url="http://127.0.0.1:9",
        project_id=DUMMY,
        internal_token=DUMMY,
        signing_secret=DUMMY,
        cdn_host="cdn.localhost:9",
    )


async def _refuse(_request: wire.Request) -> wire.Response:
    """The network, and STORAGE: nothing is there while a bundle is on trial."""
    from amba_runtime.wire import Response

    return Response(503)


@dataclass(frozen=True, slots=True)
class _Subject:
    """One function to be judged. `root` is the real folder that its places are relative to."""

    source: FunctionSource
    config: ProjectConfig
    root: Path
    entry: str


@dataclass(slots=True)
class Checker:
    """One check. `run` once.

    Args:
        builder: bundles the sources.
        scanner: parses bundles; of strangers' bytes it should be confined (see EsbuildScan).
        engine: None with `options.static`.
    """

    options: CheckOptions
    builder: Esbuild
    scanner: Esbuild
    engine: Engine | None
    clock: Clock
    _warnings: list[str] = field(default_factory=list[str])

    async def run(self) -> Report:
        """Judge everything, several at once.

        Raises:
            UserError: a path or configuration cannot be used.
            InternalError: esbuild or the engine failed.
        """
        began = datetime.fromtimestamp(self.clock.time_s(), UTC)
        judge = Judge(EsbuildScan(self.scanner), self.engine)
        turns = asyncio.Semaphore(limits.CHECKS_AT_ONCE.value)
        subjects = self._subjects()
        if not subjects:
            self._warnings.append("no functions were found")

        async def one(subject: _Subject) -> FunctionReport:
            async with turns:
                began_s = self.clock.monotonic_s()
                found = await self._function(subject, judge)
                return replace(found, seconds=self.clock.monotonic_s() - began_s)

        tasks = [asyncio.create_task(one(subject)) for subject in subjects]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        functions = tuple(self._within_budget(function) for function in found)
        return Report(
            functions,
            began.strftime("%Y-%m-%dT%H:%M:%S"),
            tuple(dict.fromkeys(map(words, self._warnings))),
        )

    def _subjects(self) -> list[_Subject]:
        found: dict[str, _Subject] = {}
        for path in self.options.paths:
            for subject in self._finished(path) if self.options.finished else self._sources(path):
                found.setdefault(os.path.realpath(subject.source.entry), subject)
        if len(found) > limits.CHECK_FUNCTIONS.value:
            raise UserError(
                UserCode.INVALID_CONFIG,
                f"{len(found)} functions are more than {limits.CHECK_FUNCTIONS.value}",
                hint="check them in parts",
            )
        return list(found.values())

    def _sources(self, path: Path) -> list[_Subject]:
        folder = folder_of(path)
        config = load_config(folder)
        found = discover(path, config)
        self._warnings += found.warnings
        root = Path(os.path.realpath(folder))
        return [_Subject(s, config, root, _shown(s.entry)) for s in found.functions]

    def _finished(self, path: Path) -> list[_Subject]:
        folder = folder_of(path)
        files = [path]
        if path.is_dir():
            named = sorted(f for f in path.iterdir() if f.suffix.lower() in _BUNDLE_SUFFIXES)
            files = [file for file in named if not _is_odd(file)]
            self._warnings += [
                f"{_shown(file)} is skipped: it is no regular file; put a file in its place"
                for file in named
                if _is_odd(file)
            ]
        config = load_config(folder)
        root = Path(os.path.realpath(folder))
        return [
            _Subject(FunctionSource(FunctionName(words(f.stem)), f), config, root, _shown(f))
            for f in files
        ]

    async def _function(self, subject: _Subject, judge: Judge) -> FunctionReport:
        report = FunctionReport(subject.source.name, subject.entry)
        if not self.options.finished and subject.source.kind is SourceKind.PYTHON:
            return replace(report, violations=(replace(NO_PYTHON, file=subject.entry),))
        try:
            bundle, said = await self._bundle(subject)
        except BuildFailed as failed:
            violations = await self._failed(subject, failed)
            said = tuple(_said(warning, subject) for warning in failed.warnings)
            return replace(report, violations=violations, warnings=said)
        small = len(bundle.code) <= limits.BUNDLE_BYTES.value
        packed = await asyncio.to_thread(bundle.bytes_gzip) if small else len(bundle.code)
        report = replace(
            report,
            bytes=len(bundle.code),
            bytes_gzip=packed,
            packages=tuple(by_package(bundle.metafile)) if bundle.metafile else (),
            warnings=said,
        )
        config = subject.config
        try:
            trial = await judge.judge(
                bundle,
                name=subject.source.name,
                limits_=config.limits_for(subject.source.name, FunctionLimits.hosted()),
                storage=config.storage,
                compatibility_date=config.compatibility_date,
                bundle_name=subject.source.entry.name if self.options.finished else None,
            )
        except Rejected as rejected:
            violations = tuple(_placed(v, subject) for v in rejected.violations)
            return replace(report, violations=violations)
        handlers = trial.description.handlers if trial is not None else ()
        cpu_s = trial.cpu_s if trial is not None else 0.0
        warnings = warnings_of(bytes_gzip=packed, startup_cpu_s=cpu_s)
        return replace(report, handlers=handlers, warnings=(*said, *warnings))

    async def _bundle(self, subject: _Subject) -> tuple[Bundle, tuple[str, ...]]:
        """The bundle, and what its build warned of."""
        entry = subject.source.entry
        if self.options.finished:
            return await asyncio.to_thread(_read_bundle, entry), ()
        # as `deploy` does: what is measured and judged here is what it would send
        options = BuildOptions(root=subject.root, minify=Minify.ON)
        built = await build(entry, options, esbuild=self.builder)
        return built.bundle, tuple(_said(warning, subject) for warning in built.warnings)

    async def _failed(self, subject: _Subject, failed: BuildFailed) -> tuple[Violation, ...]:
        """One violation per error, each with who imports its file."""
        chains: dict[str, tuple[str, ...]] = {}
        left = frozenset(specifier for e in failed.errors if (specifier := unresolved(e)))
        if left:
            entry, root = subject.source.entry, subject.root
            metafile = await account(entry, root, leave=left, esbuild=self.builder)
            chains = chains_of(metafile)
        return tuple(_placed(_of_build(error, chains), subject) for error in failed.errors)

    def _within_budget(self, function: FunctionReport) -> FunctionReport:
        options = self.options
        if options.against is not None and function.bytes:
            function = replace(function, growth=growth_of(function, options.against))
        over: list[str] = []
        most = options.max_size
        if most is not None and function.bytes_gzip > most:
            over.append(f"{function.bytes_gzip} bytes at gzip level 9 are more than {most}")
        grown, bound = function.growth, options.max_growth
        if grown is not None and bound is not None and _is_over(grown, bound):
            over.append(
                f"{grown.bytes_gzip} bytes were added to {grown.before_gzip} at gzip level 9, "
                f"more than {shown_size(bound)}"
            )
        heavy = ", ".join(f"{name} ({weight} bytes)" for name, weight in function.packages[:3])
        fix = f"the heaviest parts are {heavy}" if heavy else "make it smaller, or raise the budget"
        file, chain = function.entry, (function.entry,)
        violations = tuple(
            Violation(ViolationCode.OVER_BUDGET, text, fix, file=file, chain=chain) for text in over
        )
        return replace(function, violations=(*function.violations, *violations))


def _is_over(grown: Growth, bound: Size) -> bool:
    if bound.is_percent:
        return grown.percent > bound.value
    return grown.bytes_gzip > bound.value


def _is_odd(path: Path) -> bool:
    """A folder, or a pipe, which would be waited for; what is not there is told elsewhere."""
    return os.path.exists(path) and not os.path.isfile(path)


def _read_bundle(path: Path) -> Bundle:
    """A finished bundle and the map beside it. More than may be is not read to its end."""
    if _is_odd(path):
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{path} is no regular file",
            hint="name a bundle, or a folder of bundles",
        )
    try:
        with path.open("rb") as file:
            code = file.read(limits.BUNDLE_BYTES.value + 1)
    except OSError as error:
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{path} cannot be read: {error.strerror}",
            hint="make it readable, or name another file",
        ) from error
    beside = path.with_name(f"{path.name}.map")
    if not os.path.isfile(beside):
        return Bundle.of(code)
    try:
        with beside.open("rb") as file:
            return Bundle.of(code, source_map=file.read(limits.SOURCE_MAP.value + 1))
    except OSError:
        return Bundle.of(code)


def _of_build(error: BuildError, chains: Mapping[str, tuple[str, ...]]) -> Violation:
    # the errors of esbuild count characters; editors and SARIF count UTF-16 units
    wide = sum(ord(char) > 0xFFFF for char in error.source_line[: error.caret])
    return Violation(
        ViolationCode.BUILD_FAILED,
        error.message,
        error.fix or "correct the line",
        file=error.file,
        line=error.line,
        column=error.column + wide if error.line else 0,
        chain=chains.get(error.file, (error.file,) if error.file else ()),
    )


def _said(warning: BuildError, subject: _Subject) -> str:
    """A warning of a build with its place, on one line."""
    place = f"{_of_root(subject, warning.file)}:{warning.line}: " if warning.line else ""
    return f"{place}{warning.message}"


def _placed(violation: Violation, subject: _Subject) -> Violation:
    """The violation with paths as the user would write them, and never without a file."""
    if not violation.file:
        return replace(violation, file=subject.entry, chain=(subject.entry,))
    chain: Sequence[str] = violation.chain or (violation.file,)
    return replace(
        violation,
        file=_of_root(subject, violation.file),
        chain=tuple(_of_root(subject, file) for file in chain),
    )


def _of_root(subject: _Subject, file: str) -> str:
    """A file as the user would write it; the URL that another bundler put in a map as it is."""
    return words(file) if _URL.match(file) else _shown(subject.root / words(file))


def _shown(path: Path) -> str:
    """Relative to the current folder where it is below it, with `/`; harmless to print."""
    whole = os.path.abspath(path)
    real = Path(os.path.realpath(whole)) if not os.path.lexists(whole) else Path(whole)
    for here in (Path.cwd(), Path(os.path.realpath(Path.cwd()))):
        for candidate in (real, Path(os.path.realpath(whole))):
            if candidate.is_relative_to(here):
                return words(candidate.relative_to(here).as_posix())
    return words(Path(whole).as_posix())
