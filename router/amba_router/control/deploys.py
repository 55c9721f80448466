"""One deploy, one rollback: trial, commit, switch, in that order and one at a time per function.

Nothing is answered before the store has committed and the route has switched; nothing that was
started is left behind when any step fails. Source: architecture.md section 4; contract D.2, D.4.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.api.turns import Turns
from amba_router.store.control_records import NewDeployment
from amba_runtime import limits
from amba_runtime.egress_rules import NO_RULES, EgressRules
from amba_runtime.manifest import Bundle, FunctionName
from amba_runtime.violations import Rejected

if TYPE_CHECKING:
    from amba_router.control.host import Host, Trial
    from amba_router.control.pushes import Pushes
    from amba_router.control.timetable import Line, Timetable
    from amba_router.rate_limit import RateLimit
    from amba_router.store.control import ControlStore
    from amba_router.store.control_records import Deployment, ProjectRecord
    from amba_runtime.secret import SecretText

logger = logging.getLogger("amba.control")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to serve, already checked as far as its own bytes go.

    Attributes:
        schedules: None leaves those that are there.
    """

    name: FunctionName
    bundle: Bundle
    rate_limit: RateLimit | None = None
    limits: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    engine: str = "workerd"
    rolled_back_from: int | None = None
    egress: EgressRules = NO_RULES
    schedules: tuple[Line, ...] | None = None


@dataclass(frozen=True, slots=True)
class Deployed:
    """What serves now; `warnings` for the person."""

    deployment: Deployment
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many deployments were disabled, and how many schedules went."""

    deployments: int
    schedules: int


class Deploys:
    """Changes what serves. `close` once, at the end."""

    def __init__(
        self, store: ControlStore, host: Host, pushes: Pushes, timetable: Timetable
    ) -> None:
        self._store = store
        self._host = host
        self._pushes = pushes
        self._timetable = timetable
        self._turns = Turns(limits.DEPLOY_WAITERS.value, _too_many)
        self._commits: set[asyncio.Task[Deployed]] = set()

    async def deploy(
        self, project: ProjectRecord, wanted: Wanted, still: Callable[[], None]
    ) -> Deployed:
        """Make it the function's next version and let it serve.

        Args:
            still: asked just before the commit; raises when the caller may not any more.

        Raises:
            Refused: DEPLOY_REJECTED with every violation, TOO_MANY_DEPLOYS; what the store says.
        """
        async with self._turns.take((project.id, wanted.name)):
            return await self._deploy(project, wanted, still)

    async def roll_back(
        self, project: ProjectRecord, old: Deployment, still: Callable[[], None]
    ) -> Deployed:
        """A new version from an old one's bundle, limits, rate limit and rules of egress.

        Schedules are the function's, not a version's: they stay as they are.
        """
        async with self._turns.take((project.id, old.name)):
            wanted = Wanted(
                old.name,
                await self._store.load_bundle(old.id),
                old.rate_limit,
                old.limits,
                old.engine,
                old.version,
                old.egress,
            )
            return await self._deploy(project, wanted, still)

    async def disable(
        self, project: ProjectRecord, old: Deployment, still: Callable[[], None]
    ) -> Deployment | None:
        """Serve this deployment no more; None when it is gone."""
        async with self._turns.take((project.id, old.name)):
            # which one is active may have changed while this one waited
            now = await self._store.find_deployment(project.id, deployment_id=old.id)
            still()
            disabled = await self._store.disable_deployment(project.id, old.id)
            if now is not None and now.status == "active":
                self._host.remove(project.id, old.name)
            return disabled

    async def delete(
        self, project: ProjectRecord, name: str, still: Callable[[], None]
    ) -> Deleted | None:
        """404 from now on, and its schedules go; None when there never was one."""
        async with self._turns.take((project.id, name)):
            still()
            count = await self._store.delete_function(project.id, name)
            if count is None:
                return None
            self._host.remove(project.id, name)
            return Deleted(count, await self._timetable.forget(project.id, name))

    async def close(self) -> None:
        """Wait for commits under way and their switches."""
        await asyncio.gather(*self._commits, return_exceptions=True)

    async def _deploy(
        self, project: ProjectRecord, wanted: Wanted, still: Callable[[], None]
    ) -> Deployed:
        still()
        version = await self._store.next_version(project.id, wanted.name)
        epoch = self._pushes.epoch(project.id)
        env = await self._store.secrets_for_new(project.id, wanted.name)
        try:
            trial = await self._host.trial(
                project,
                wanted.name,
                wanted.bundle,
                version=version,
                limits=wanted.limits,
                env=env,
                storage=project.storage,
                egress=wanted.egress,
            )
        except Rejected as refusal:
            logger.info(
                "deploy.rejected project=%s function=%s codes=%s",
                project.id,
                wanted.name,
                ",".join(sorted({str(v.code) for v in refusal.violations})),
            )
            raise faults.rejected(refusal.violations) from None
        try:
            if wanted.schedules and "scheduled" not in trial.handlers:
                raise faults.INVALID_METADATA.refuse(
                    "schedules: the function has no scheduled handler; export one, or declare none",
                    {"field": "schedules", "handlers": list(trial.handlers)},
                )
            still()
        except BaseException:
            await self._host.discard(trial)
            raise
        # from here on a caller that leaves, or a shutdown, must not part commit and switch
        commit = asyncio.create_task(self._commit(project, wanted, version, trial, env))
        self._commits.add(commit)
        commit.add_done_callback(self._commits.discard)
        deployed = await asyncio.shield(commit)
        if self._pushes.epoch(project.id) != epoch:
            await self._catch_up(deployed.deployment, dict(env))
        return deployed

    async def _commit(
        self,
        project: ProjectRecord,
        wanted: Wanted,
        version: int,
        trial: Trial,
        env: Sequence[tuple[str, SecretText]],
    ) -> Deployed:
        try:
            deployment = await self._store.add_deployment(
                NewDeployment(
                    project_id=project.id,
                    name=wanted.name,
                    version=version,
                    bundle=wanted.bundle,
                    handlers=trial.handlers,
                    rate_limit=wanted.rate_limit,
                    limits=wanted.limits,
                    engine=wanted.engine,
                    rolled_back_from=wanted.rolled_back_from,
                    egress=wanted.egress,
                )
            )
        except BaseException:
            await self._host.discard(trial)
            raise
        self._host.activate(deployment, trial, stale=await self._stale(deployment, env))
        warnings = await self._schedule(deployment, wanted.schedules)
        return Deployed(deployment, (*trial.warnings, *warnings))

    async def _schedule(
        self, deployment: Deployment, lines: tuple[Line, ...] | None
    ) -> tuple[str, ...]:
        """What it declared holds from here on; it serves already, whatever becomes of that."""
        if lines is None:
            return ()
        try:
            await self._timetable.deployed(deployment.project_id, deployment.name, lines)
        except Exception as error:  # a full disk, say, or too many: told, and the old ones stay
            if not isinstance(error, faults.Refused):
                logger.exception("deploy.schedules_failed deployment=%s", deployment.id)
            said = str(error) if isinstance(error, faults.Refused) else "see the log of the server"
            return (f"its schedules are what they were: {said}",)
        return ()

    async def _stale(self, deployment: Deployment, env: Sequence[tuple[str, SecretText]]) -> bool:
        """Whether a secret that was tried was unset or replaced before the commit.

        What the store says from the commit on is what each later start of this deployment has.
        """
        if not env:
            return False
        try:
            now = dict(await self._store.secrets_for(deployment.id))
        except Exception:
            # whatever it is: committed, it has to serve; its own start says what is wrong
            logger.exception("deploy.secrets_unread deployment=%s", deployment.id)
            return True
        return any(now.get(name) != value for name, value in env)

    async def _catch_up(self, deployment: Deployment, env: Mapping[str, object]) -> None:
        """A secret was set while the version was on trial: what runs was started without it."""
        for name, value in await self._store.secrets_for(deployment.id):
            if env.get(name) != value:
                await self._pushes.push(deployment.project_id, deployment.name, name, value)


def _too_many() -> faults.Refused:
    return faults.TOO_MANY_DEPLOYS.refuse(
        f"{limits.DEPLOY_WAITERS.value} deploys of this function wait already; try again later",
        retry_after_s=5,
    )
