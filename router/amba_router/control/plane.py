"""The control plane's part of the API: uploads, versions, keys, secrets, logs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.api.operations import Operation
from amba_router.api.turns import Turns
from amba_router.control.deploys import Deploys
from amba_router.control.pushes import Pushes
from amba_router.control.services import Services
from amba_runtime import limits

if TYPE_CHECKING:
    from amba_router.api.callers import Directory
    from amba_router.control.host import Host, Logs
    from amba_router.control.timetable import Timetable
    from amba_router.store.control import ControlStore
    from amba_runtime.clock import Clock


class ControlPlane:
    """`operations` for an `Api`; `close` once, at the end.

    Args:
        store: what is remembered.
        host: what starts and serves.
        logs: what `functions/:name/logs` reads.
        directory: the credentials of the same `Api`.
        timetable: the schedules that uploads declare.
    """

    def __init__(
        self,
        *,
        store: ControlStore,
        host: Host,
        logs: Logs,
        directory: Directory,
        clock: Clock,
        timetable: Timetable,
    ) -> None:
        self._pushes = Pushes(host, clock)
        self._deploys = Deploys(store, host, self._pushes, timetable)
        self._services = Services(
            store=store,
            host=host,
            logs=logs,
            clock=clock,
            directory=directory,
            deploys=self._deploys,
            pushes=self._pushes,
            turns=Turns(limits.DEPLOY_WAITERS.value, _busy),
            timetable=timetable,
        )

    def operations(self) -> Iterable[Operation]:
        """A `Part` of an API."""
        from amba_router.control import credentials, functions, projects, secrets

        for part in (projects, credentials, functions, secrets):
            yield from part.operations(self._services)

    async def close(self) -> None:
        """Wait for commits that were begun; give up secret pushes. Idempotent."""
        await self._deploys.close()
        await self._pushes.close()


def _busy() -> Refused:
    return faults.TOO_MANY_DEPLOYS.refuse(
        "too many changes of this wait; try again", retry_after_s=1
    )
