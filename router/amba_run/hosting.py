"""The node as the control plane sees it: deployed versions on trial, active, removed, rekeyed.

Implements `amba_router.control.host.Host` over a `Node`'s routes. What is deployed is known here
by its facts alone; content is read from the store when an isolate starts.
Source: architecture.md section 4, steps 6 to 10.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amba_router.api import faults
from amba_router.control.host import Trial
from amba_router.logs import LogStore
from amba_router.metrics import Metrics
from amba_router.rate_limit import RateCounter
from amba_router.routes import Project, Route
from amba_router.signing import Keyring
from amba_router.store.control import ControlStore
from amba_router.store.control_records import (
    Credentials,
    Deployment,
    ProjectRecord,
    ProjectState,
    Snapshot,
)
from amba_run.config_values import COMPATIBILITY_DATE
from amba_run.hosted import DeploymentKept, Hosted
from amba_run.hosted_facts import limits_of, revealed, size_if_large, tenant
from amba_run.node import Node
from amba_run.stack_maps import StackMaps
from amba_runtime import admission
from amba_runtime.background import Background
from amba_runtime.clock import Clock
from amba_runtime.egress_rules import EgressRules
from amba_runtime.engine.base import Description
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.secret import SecretText
from amba_runtime.slot import Overloaded, Slot

logger = logging.getLogger("amba.hosting")


@dataclass(frozen=True, slots=True)
class HostedTrial:
    """A version that runs and does not serve (`control.host.Trial`)."""

    slot: Slot
    handlers: tuple[str, ...]
    warnings: tuple[str, ...]


class Hosting:
    """A `control.host.Host`. `restore` first, `close` before the node's."""

    def __init__(
        self, node: Node, store: ControlStore, *, scan: admission.Scan, clock: Clock
    ) -> None:
        self.maps = StackMaps(store)
        self.logs = LogStore(clock, self.maps.mapper)
        self.logs.hear(node.journal)
        self.metrics = Metrics()
        node.journal.listen(self.metrics.batch, self.metrics.late, self.metrics.limit)
        self._node = node
        self._store = store
        self._scan = scan
        self._clock = clock
        self._hosted: dict[str, Hosted] = {}
        self._pats: dict[str, dict[bytes, str]] = {}
        """Developer id -> (SHA-256 of a token -> the same id): what a project's identities read."""
        self._on_trial: set[Slot] = set()
        self._background = Background()

    def restore(self, snapshot: Snapshot) -> None:
        """Make everything reachable that the store knows; nothing is started."""
        self.set_pats(snapshot.pats)
        for state in snapshot.projects:
            self.add_project(state)

    async def close(self) -> None:
        """Wait for nothing more. Idempotent."""
        await self._background.close()

    # versions

    async def trial(
        self,
        project: ProjectRecord,
        name: FunctionName,
        bundle: Bundle,
        *,
        version: int,
        limits: Mapping[str, int],
        env: tuple[tuple[str, SecretText], ...],
        storage: bool,
        egress: EgressRules,
    ) -> HostedTrial:
        """See `Host.trial`."""
        hosted = self._of(project.id)
        routed = hosted.project
        settings, warnings = limits_of(limits)

        async def start() -> Slot:
            slot = await self._node.start(
                routed,
                name,
                bundle,
                version=version,
                secrets=revealed(env),
                limits=settings,
                storage=storage,
                compatibility_date=COMPATIBILITY_DATE,
                egress=egress,
            )
            slot.enter()  # until it serves, its trial is what it has under way
            self._on_trial.add(slot)
            return slot

        try:
            slot = await admission.admit(
                bundle,
                scan=self._scan,
                start=start,
                description_of=_description,
                discard=self._discard,
                name=f"{name}.js",
            )
        except admission.Rejected as refusal:
            self.metrics.refusals.update({str(v.code) for v in refusal.violations})
            raise
        except Overloaded:
            raise faults.OVERLOADED.refuse(
                "too many functions are at work to try another one; try again shortly",
                retry_after_s=1,
            ) from None
        said = admission.warnings_of(
            bytes_gzip=await size_if_large(bundle), startup_cpu_s=slot.cpu_seen_s
        )
        return HostedTrial(slot, _description(slot).handlers, (*warnings, *said))

    async def discard(self, trial: Trial) -> None:
        """See `Host.discard`."""
        await self._discard(_own(trial).slot)

    async def _discard(self, slot: Slot) -> None:
        self._end_trial(slot)
        await self._node.discard(slot)

    def _end_trial(self, slot: Slot) -> None:
        if slot in self._on_trial:
            self._on_trial.remove(slot)
            slot.leave()

    def activate(self, deployment: Deployment, trial: Trial, *, stale: bool = False) -> None:
        """See `Host.activate`."""
        slot = _own(trial).slot
        hosted = self._hosted.get(deployment.project_id)
        if hosted is None:  # the project was deleted meanwhile
            self._background.spawn(self._discard(slot))
            return
        keyring = hosted.project.keyring
        given = set(slot.manifest.env)
        # keys that changed while it was on trial: it would refuse what is stamped now, or be
        # refused what it asks for
        if stale or not given.issuperset(self._node.platform_env(deployment.project_id, keyring)):
            self._background.spawn(self._discard(slot))
            slot = self._dormant(deployment, hosted, keyring)
        else:
            self._end_trial(slot)
            self._node.keep_in(slot, self._kept(deployment, keyring))
        hosted.serving[deployment.name] = deployment
        route = self._node.route(hosted.project, deployment.name)
        route.counter = self._counter(deployment, route.counter)
        self._node.activate(route, slot)
        route.handlers = deployment.handlers

    def remove(self, project_id: str, name: str) -> None:
        """See `Host.remove`."""
        hosted = self._hosted.get(project_id)
        if hosted is not None:
            hosted.serving.pop(name, None)
            route = hosted.project.routes.pop(name.encode(), None)
            if route is not None and route.slot is not None:
                self._node.retire(route.slot)

    # projects

    def add_project(self, state: ProjectState) -> None:
        """See `Host.add_project`."""
        project = self._node.add(tenant(state.record, state.credentials))
        project.identities.set_pats(self._pats_of(state.record.developer_id))
        hosted = Hosted(state.record, state.credentials, project)
        self._hosted[state.record.id] = hosted
        for deployment in state.active:
            hosted.serving[deployment.name] = deployment
            project.routes[deployment.name.encode()] = Route(
                deployment.name,
                self._dormant(deployment, hosted, project.keyring),
                self._counter(deployment, None),
                handlers=deployment.handlers,
            )

    def remove_project(self, project_id: str) -> None:
        """See `Host.remove_project`."""
        hosted = self._hosted.pop(project_id, None)
        if hosted is not None:
            self._node.projects.remove(hosted.project)
            self.logs.forget_project(project_id)
            self._retire_all(hosted.project)

    def set_pats(self, pats: Sequence[tuple[bytes, str]]) -> None:
        """See `Host.set_pats`."""
        self._pats = {}
        for hashed, developer_id in pats:
            self._pats.setdefault(developer_id, {})[hashed] = developer_id
        for hosted in self._hosted.values():
            hosted.project.identities.set_pats(self._pats_of(hosted.record.developer_id))

    def knows_developer(self, hashed: bytes) -> bool:
        """Whether this is the SHA-256 of a personal access token that holds."""
        return any(hashed in pats for pats in self._pats.values())

    def _pats_of(self, developer_id: str) -> dict[bytes, str]:
        return self._pats.get(developer_id, {})

    # credentials and secrets

    def set_credentials(self, project_id: str, credentials: Credentials) -> None:
        """See `Host.set_credentials`.

        A new signing secret means new isolates: what is stamped and what verifies it change in
        one step. They are warm before the step; until then the old ones serve, and whatever
        starts for the first time has what is stamped by then.
        """
        hosted = self._hosted.get(project_id)
        if hosted is None:
            return
        before, hosted.credentials = hosted.credentials, credentials
        keys = tenant(hosted.record, credentials)
        self._node.set_tenant(keys)
        hosted.project.identities.set_session_keys((keys.session_key, *keys.older_sessions))
        if before.signing != credentials.signing:
            self._background.spawn(self._rekey(hosted))
        if before.internal[0] != credentials.internal[0]:
            self._background.spawn(hosted.hand_token(self._clock))

    async def push_secret(
        self, project_id: str, function: str | None, name: str, value: SecretText
    ) -> None:
        """See `Host.push_secret`: each isolate is given what the store says it has by now."""
        hosted = self._hosted.get(project_id)
        if hosted is not None:
            await hosted.refresh(function, name)

    async def _rekey(self, hosted: Hosted) -> None:
        async with hosted.rekeying:
            credentials = hosted.credentials
            keyring = tenant(hosted.record, credentials).keyring()
            ready: dict[str, tuple[Deployment, Slot]] = {}
            for name, deployment in hosted.serving.items():
                route = hosted.project.routes.get(name.encode())
                if route is not None and route.slot is not None and route.slot.awake:
                    ready[name] = (deployment, self._dormant(deployment, hosted, keyring))
            hosted.warming = tuple(slot for _, slot in ready.values())
            try:
                await asyncio.gather(
                    *[slot.ready() for slot in hosted.warming], return_exceptions=True
                )
                same = credentials.signing == hosted.credentials.signing
                if same and self._hosted.get(hosted.record.id) is hosted:
                    self._switch(hosted, ready)
            finally:
                hosted.warming = ()  # from here on they are behind routes, or end
                for _, slot in ready.values():
                    self._node.retire(slot)  # what was not used, or nothing

    def _switch(self, hosted: Hosted, ready: dict[str, tuple[Deployment, Slot]]) -> None:
        """From here on requests are stamped with the newest secret, for isolates that have it."""
        old = hosted.project
        fresh = self._node.add(tenant(hosted.record, hosted.credentials))
        fresh.identities.set_pats(self._pats_of(hosted.record.developer_id))
        for name, deployment in hosted.serving.items():
            warm = ready.get(name)
            slot = None
            if warm is not None and warm[0] is deployment:
                slot = ready.pop(name)[1]
            before = old.routes.get(name.encode())
            counter = before.counter if before is not None else None
            fresh.routes[name.encode()] = Route(
                deployment.name,
                slot or self._dormant(deployment, hosted, fresh.keyring),
                self._counter(deployment, counter),
                handlers=deployment.handlers,
            )
        hosted.project = fresh
        self._retire_all(old)

    # parts

    def fn_url(self, slug: str, name: str) -> str:
        """See `Host.fn_url`."""
        return self._node.fn_url(slug, name)

    def _of(self, project_id: str) -> Hosted:
        hosted = self._hosted.get(project_id)
        if hosted is None:
            raise faults.PROJECT_NOT_FOUND.refuse("the project was deleted")
        return hosted

    def _dormant(self, deployment: Deployment, hosted: Hosted, keyring: Keyring) -> Slot:
        settings, _ = limits_of(deployment.limits)
        manifest = Manifest(
            ProjectId(deployment.project_id),
            deployment.name,
            deployment.version,
            storage=hosted.record.storage,
            compatibility_date=COMPATIBILITY_DATE,
        )
        return self._node.dormant(
            manifest, settings, self._kept(deployment, keyring), deployment.egress
        )

    def _kept(self, deployment: Deployment, keyring: Keyring) -> DeploymentKept:
        return DeploymentKept(
            self._store, self._node, deployment.project_id, deployment.id, keyring
        )

    def _counter(self, deployment: Deployment, before: RateCounter | None) -> RateCounter | None:
        """One that goes on counting where the limit is what it was."""
        limit = deployment.rate_limit
        if limit is None:
            return None
        if before is not None and before.limit == limit:
            return before
        scope = f"{deployment.project_id}:{deployment.name}"
        return RateCounter(limit, scope=scope, clock=self._clock, refused=self._limited)

    def _limited(self) -> None:
        self.metrics.refusals["rate_limited"] += 1

    def _retire_all(self, project: Project) -> None:
        for route in project.routes.values():
            if route.slot is not None:
                self._node.retire(route.slot)


def _description(slot: Slot) -> Description:
    if slot.description is None:
        raise InternalError(InternalCode.INVARIANT, "a version on trial was not described")
    return slot.description


def _own(trial: Trial) -> HostedTrial:
    if not isinstance(trial, HostedTrial):
        raise InternalError(InternalCode.INVARIANT, "this trial is another host's")
    return trial
