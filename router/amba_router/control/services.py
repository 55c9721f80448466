"""What the handlers of the control plane are made with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.api.callers import Directory
    from amba_router.api.turns import Turns
    from amba_router.control.deploys import Deploys
    from amba_router.control.host import Host, Logs
    from amba_router.control.pushes import Pushes
    from amba_router.control.timetable import Timetable
    from amba_router.store.control import ControlStore


@dataclass(frozen=True, slots=True)
class Services:
    """One node's. `turns` keeps changes of one project's keys and secrets in order."""

    store: ControlStore
    host: Host
    logs: Logs
    clock: Clock
    directory: Directory
    deploys: Deploys
    pushes: Pushes
    turns: Turns
    timetable: Timetable
