"""A bundle judged as the upload judges it: started alone, with nothing real around it.

Dummy values for every binding, no network (egress refuses), no credentials.
Source: interface.md section 2; issue 3 item 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from amba_bundler.esbuild import Esbuild
from amba_bundler.scan import EsbuildScan
from amba_runtime.admission import Scan, admit, inspect
from amba_runtime.engine.base import Description, Engine, Isolate, Surroundings
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.violations import Rejected

if TYPE_CHECKING:
    from amba_run.config import Environment
    from amba_runtime import wire

DUMMY = "dummy"


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
