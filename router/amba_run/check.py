"""`amba-run check`: build and admit without serving, exactly what an upload would be told.

One engine for all, dummy values for every binding, no network (egress refuses), no credentials.
Source: interface.md section 2; issue 3 item 2.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from amba_bundler.build import BuildOptions, Minify, account, build
from amba_bundler.esbuild import Esbuild
from amba_bundler.messages import BuildFailed, unresolved
from amba_bundler.report import (
    FunctionReport,
    Growth,
    Report,
    Weights,
    by_package,
    growth_of,
)
from amba_bundler.scan import EsbuildScan
from amba_run.config import load_config
from amba_run.discovery import FunctionSource, SourceKind, discover, folder_of
from amba_run.judge import Judge
from amba_run.sizes import Size, shown_size
from amba_run.subjects import Subject, is_odd, of_build, placed, read_bundle, said_of, shown
from amba_runtime import limits
from amba_runtime.admission import warnings_of
from amba_runtime.engine.base import Engine
from amba_runtime.errors import UserCode, UserError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName
from amba_runtime.places import chains_of, words
from amba_runtime.violations import NO_PYTHON, Rejected, Violation, ViolationCode

if TYPE_CHECKING:
    from amba_runtime.clock import Clock

_BUNDLE_SUFFIXES = (".js", ".mjs")


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

        async def one(subject: Subject) -> FunctionReport:
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

    def _subjects(self) -> list[Subject]:
        found: dict[str, Subject] = {}
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

    def _sources(self, path: Path) -> list[Subject]:
        folder = folder_of(path)
        config = load_config(folder)
        found = discover(path, config)
        self._warnings += found.warnings
        root = Path(os.path.realpath(folder))
        return [Subject(s, config, root, shown(s.entry)) for s in found.functions]

    def _finished(self, path: Path) -> list[Subject]:
        folder = folder_of(path)
        files = [path]
        if path.is_dir():
            named = sorted(f for f in path.iterdir() if f.suffix.lower() in _BUNDLE_SUFFIXES)
            files = [file for file in named if not is_odd(file)]
            self._warnings += [
                f"{shown(file)} is skipped: it is no regular file; put a file in its place"
                for file in named
                if is_odd(file)
            ]
        config = load_config(folder)
        root = Path(os.path.realpath(folder))
        return [
            Subject(FunctionSource(FunctionName(words(f.stem)), f), config, root, shown(f))
            for f in files
        ]

    async def _function(self, subject: Subject, judge: Judge) -> FunctionReport:
        report = FunctionReport(subject.source.name, subject.entry)
        if not self.options.finished and subject.source.kind is SourceKind.PYTHON:
            return replace(report, violations=(replace(NO_PYTHON, file=subject.entry),))
        try:
            bundle, said = await self._bundle(subject)
        except BuildFailed as failed:
            violations = await self._failed(subject, failed)
            said = tuple(said_of(warning, subject) for warning in failed.warnings)
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
            violations = tuple(placed(v, subject) for v in rejected.violations)
            return replace(report, violations=violations)
        handlers = trial.description.handlers if trial is not None else ()
        cpu_s = trial.cpu_s if trial is not None else 0.0
        warnings = warnings_of(bytes_gzip=packed, startup_cpu_s=cpu_s)
        return replace(report, handlers=handlers, warnings=(*said, *warnings))

    async def _bundle(self, subject: Subject) -> tuple[Bundle, tuple[str, ...]]:
        """The bundle, and what its build warned of."""
        entry = subject.source.entry
        if self.options.finished:
            return await asyncio.to_thread(read_bundle, entry), ()
        # as `deploy` does: what is measured and judged here is what it would send
        options = BuildOptions(root=subject.root, minify=Minify.ON)
        built = await build(entry, options, esbuild=self.builder)
        return built.bundle, tuple(said_of(warning, subject) for warning in built.warnings)

    async def _failed(self, subject: Subject, failed: BuildFailed) -> tuple[Violation, ...]:
        """One violation per error, each with who imports its file."""
        chains: dict[str, tuple[str, ...]] = {}
        left = frozenset(specifier for e in failed.errors if (specifier := unresolved(e)))
        if left:
            entry, root = subject.source.entry, subject.root
            metafile = await account(entry, root, leave=left, esbuild=self.builder)
            chains = chains_of(metafile)
        return tuple(placed(of_build(error, chains), subject) for error in failed.errors)

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
