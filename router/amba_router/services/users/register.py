"""Who is a user: a session of ours makes one, a server key may ask for those there are.

Source: contract A.6, H-9; architecture: what `api.app.Register` asks.
"""

from __future__ import annotations

from amba_router.services.users import rules
from amba_router.services.users.sign_in import room
from amba_router.store import user_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.user_rows import NewUser
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms


class Register:
    """Belongs to one event loop."""

    def __init__(self, store: ProjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # (project, user) seen in the store; a hint that is dropped whole when there are too many
        self._known: set[tuple[str, str]] = set()

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        """See `api.app.Register`. Raises `Refused` MAU_CAP_REACHED."""
        if (project_id, user_id) in self._known:
            return True
        there = await self._store.read(project_id, lambda s: user_rows.exists(s, user_id))
        if not there and not make:
            return False
        if not there:
            await self._store.write(project_id, lambda s: self._make(s, user_id))
        if len(self._known) >= limits.USERS_KNOWN.value:
            self._known.clear()
        self._known.add((project_id, user_id))
        return True

    def forget(self) -> None:
        """The store is another one now: ask it again."""
        self._known.clear()

    def _make(self, scoped: Scoped, user_id: str) -> None:
        if user_rows.exists(scoped, user_id):
            return  # a request beside this one was first
        room(scoped)
        new = NewUser(user_id, time_ms(self._clock), rules.display_name())
        user_rows.add(scoped, new)
