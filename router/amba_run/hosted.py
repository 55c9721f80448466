"""One hosted project: what is known of it, what serves, and the values its isolates are told.

Source: architecture.md section 4, steps 6 to 10.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from amba_router.routes import Project
from amba_router.signing import Keyring
from amba_router.store.control import ControlStore
from amba_router.store.control_records import Credentials, Deployment, ProjectRecord
from amba_run.hosted_facts import revealed
from amba_run.node import Node
from amba_runtime import limits as bounds
from amba_runtime.clock import Clock
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.manifest import Bundle
from amba_runtime.slot import Env, Slot

logger = logging.getLogger("amba.hosting")

TOKEN_NAME = "AMBA_INTERNAL_TOKEN"  # noqa: S105  a name


@dataclass(slots=True)
class Hosted:
    """One project: what is known of it, and what serves by name.

    Attributes:
        warming: started to serve once stamps change; they read their env already, so that
            whatever changes in it has to reach them, too. Changed by `Hosting._rekey` alone.
    """

    record: ProjectRecord
    credentials: Credentials
    project: Project
    serving: dict[str, Deployment] = field(default_factory=lambda: dict[str, Deployment]())
    warming: tuple[Slot, ...] = ()
    rekeying: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refresh(self, function: str | None, name: str) -> None:
        """Give each isolate what the store says that this binding is by now.

        Args:
            function: None is every function of the project.

        Raises:
            InternalError: ENGINE_PROTOCOL; some of them could not be told.
        """
        slots = [
            route.slot
            for route in self.project.routes.values()
            if route.slot is not None and function in (None, route.name)
        ]
        slots += [slot for slot in self.warming if function in (None, slot.manifest.name)]
        told = await asyncio.gather(
            *[slot.refresh((name,)) for slot in slots if slot.awake], return_exceptions=True
        )
        failed = [result for result in told if isinstance(result, BaseException)]
        if failed:
            raise InternalError(
                InternalCode.ENGINE_PROTOCOL,
                f"{len(failed)} of {len(told)} isolates could not be given {name}: {failed[0]!r}",
            ) from failed[0]

    async def hand_token(self, clock: Clock) -> None:
        """Until every isolate has the newest token, or there is a newer one."""
        newest = self.credentials.internal[0].id
        wait_s = bounds.SECRET_PUSH_AGAIN_S.value
        while self.credentials.internal[0].id == newest:
            try:
                await self.refresh(None, TOKEN_NAME)
            except InternalError as error:
                cause = type(error.__cause__).__name__  # its words could hold the value
                logger.warning("token.push_failed project=%s error=%s", self.record.id, cause)
            else:
                return
            await clock.sleep(wait_s)
            wait_s = min(wait_s * 2, bounds.SECRET_PUSH_SLOWEST_S.value)


@dataclass(frozen=True, slots=True)
class DeploymentKept:
    """Where one deployment's content lies (`room.Kept`).

    Attributes:
        keyring: what stamps the requests to its slot, whatever the project's newest one is.
    """

    store: ControlStore
    node: Node
    project_id: str
    deployment_id: str
    keyring: Keyring

    async def bundle(self) -> Bundle:
        return await self.store.load_bundle(self.deployment_id)

    async def env(self) -> Env:
        secrets = await self.store.secrets_for(self.deployment_id)
        # read after the wait: the internal token may have changed meanwhile
        return (*self.node.platform_env(self.project_id, self.keyring), *revealed(secrets))
