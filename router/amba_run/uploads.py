"""From an entry file to what is uploaded: the same build and the same judgement as everywhere.

Source: contract D.2 (the parts), D.8 (rate limits); interface.md sections 2 and 4.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amba_bundler.build import BuildOptions, Minify, build
from amba_bundler.esbuild import Esbuild, find_program
from amba_router.rate_limit import RateLimit, parse_rate_limit
from amba_run.api_client import Part
from amba_run.config import Environment, load_config
from amba_run.config_values import EngineChoice, FunctionConfig
from amba_run.discovery import discover
from amba_run.subjects import read_bundle
from amba_runtime import limits
from amba_runtime.admission import Rejected
from amba_runtime.errors import UserCode, UserError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import FUNCTION_NAME, Bundle, FunctionName


@dataclass(frozen=True, slots=True)
class Package:
    """One function, ready to go.

    Attributes:
        metadata: the JSON of the `metadata` part, `name` and `rate_limit` always in it.
        handlers: as the bundle said when it was started here.
    """

    name: str
    bundle: Bundle
    metadata: dict[str, Any]
    handlers: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())


def rate_limit_of(window: str | None, most: int | None, key: str | None) -> RateLimit | None:
    """The rate limit that three options say: all of them, or none.

    Raises:
        UserError: INVALID_RATE_LIMIT.
    """
    given = {"window": window, "max": most, "key": key}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise UserError(
            UserCode.INVALID_RATE_LIMIT,
            f"a rate limit needs all three options: {' and '.join(missing)} missing",
            hint="--rate-limit-window 60s --rate-limit-max 100 --rate-limit-key user_id",
        )
    return parse_rate_limit(given)


async def package(
    entry: Path, *, name: str | None, rate_limit: RateLimit | None, bundle_it: bool
) -> Package:
    """Bundle, judge, and gather what the upload says.

    Raises:
        UserError: ENTRY_NOT_FOUND, INVALID_NAME, INVALID_CONFIG, BuildFailed; REJECTED with
            every violation under `details["violations"]`.
    """
    from amba_run.judge import judge_bundle

    folder = entry.parent
    config = load_config(folder)
    named = _name_of(entry, name)
    own = config.functions.get(named) or FunctionConfig(named, "")
    environment = Environment.of_process()
    builder = Esbuild(find_program(environment.esbuild), memory_max=limits.BUILD_MEMORY.value)
    async with builder as esbuild:
        warnings: tuple[str, ...] = ()
        if bundle_it:
            root = await asyncio.to_thread(folder.resolve)
            options = BuildOptions(root=root, minify=Minify.ON)
            built = await build(entry, options, esbuild=esbuild)
            bundle = built.bundle
            warnings = tuple(w.message for w in built.warnings)
        else:
            bundle = read_bundle(entry)
        try:
            description = await judge_bundle(
                bundle,
                name=FunctionName(named),
                esbuild=esbuild,
                environment=environment,
                limits_=config.limits_for(named, FunctionLimits.hosted()),
            )
        except Rejected as rejected:
            raise _refused(named, rejected) from rejected
    metadata: dict[str, Any] = {"name": named, "rate_limit": None}
    if rate_limit is not None:
        metadata["rate_limit"] = rate_limit.wire()
    elif own.rate_limit is not None:
        limit = own.rate_limit
        metadata["rate_limit"] = {"window": limit.window, "max": limit.max, "key": limit.key.value}
    extra = {**config.limits, **own.limits}
    if extra:
        metadata["limits"] = extra
    if own.egress is not None:
        metadata["egress"] = own.egress.wire()
    if own.schedules is not None:
        metadata["schedules"] = [
            {"cron": s.cron, "timezone": s.timezone, "missed": s.missed} for s in own.schedules
        ]
    if own.engine is not EngineChoice.AUTO:
        metadata["engine"] = own.engine.value
    return Package(named, bundle, metadata, description.handlers, warnings)


def parts_of(packed: Package) -> list[Part]:
    """The parts of the upload, in the order of the real CLI; the map is ours, and optional."""
    parts = [
        Part(
            "script",
            f"{packed.name}.js",
            "application/javascript+module",
            packed.bundle.code,
        ),
        Part("metadata", "metadata.json", "application/json", json.dumps(packed.metadata).encode()),
    ]
    source_map = packed.bundle.source_map
    if source_map is not None and len(source_map) <= limits.SOURCE_MAP.value:
        parts.append(Part("sourcemap", f"{packed.name}.js.map", "application/json", source_map))
    return parts


def _name_of(entry: Path, given: str | None) -> str:
    if given is None:
        found = discover(entry, load_config(entry.parent)) if entry.is_file() else None
        if found is None:
            raise UserError(
                UserCode.ENTRY_NOT_FOUND,
                f"{entry} is not a file",
                hint="name the entry file, such as functions/hello.ts",
            )
        return found.functions[0].name
    if FUNCTION_NAME.match(given) is None:
        raise UserError(
            UserCode.INVALID_NAME,
            f"{given[:80]!r} cannot be a function's name",
            hint="a lower-case letter, then letters, digits, _ or -; at most 58 characters",
        )
    return given


def _refused(name: str, rejected: Rejected) -> UserError:
    lines = [f"{name} would be refused by the platform:"]
    lines += [v.as_text() for v in rejected.violations]
    return UserError(
        UserCode.REJECTED,
        "\n".join(lines),
        details={"violations": [v.as_json() for v in rejected.violations]},
    )
