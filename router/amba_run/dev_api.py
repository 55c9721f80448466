"""The platform API of a dev server: its one project, and the emulated services.

The same operations as on a node, in the same state directory; the control plane is a node's.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from amba_router.api.app import Api
from amba_router.api.callers import Directory
from amba_router.asgi import Receive, Scope, Send
from amba_router.store.control_records import (
    ApiKey,
    Credential,
    CredentialKind,
    Credentials,
    KeyType,
    ProjectRecord,
    ProjectState,
    Snapshot,
)
from amba_router.store.on_demand import OnDemand
from amba_run import __version__, dev_state
from amba_run.dev_state import DEVELOPER_ID
from amba_run.emulation import Emulation, Fires
from amba_runtime.clock import Clock, time_ms
from amba_runtime.manifest import DeveloperId
from amba_runtime.secret import SecretText

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from amba_router.services.storage.service import StorageService
    from amba_router.store.state import State
    from amba_run.addresses import Reach
    from amba_run.in_process import Told
    from amba_run.seeding import Seeder


class DevApi:
    """What answers on the bare host of a dev server. `open` once; `close` at the end.

    Args:
        held: the keys of the project, as its state directory has them.
    """

    def __init__(self, state: Path, slug: str, held: dev_state.Credentials, clock: Clock) -> None:
        self._clock = clock
        self._record = ProjectRecord(
            id=held.project,
            slug=slug,
            name=slug,
            platform="all",
            environment="development",
            bundle_id=None,
            developer_id=DeveloperId(DEVELOPER_ID),
            storage=True,
            created_ms=time_ms(clock),
        )
        self._held = held
        self.states = OnDemand(state, clock, prepare=self._known)
        self._emulation: Emulation | None = None
        self._api: Api | None = None
        self._answered: Callable[[str, str], None] | None = None

    def open(
        self,
        storage: StorageService,
        triggers: Fires,
        reach: Callable[[], Reach],
        *,
        ai_fixtures: Path | None,
        answered: Callable[[str, str], None],
    ) -> None:
        """Answer from here on.

        Args:
            reach: how the server is reached, once it listens.
            ai_fixtures: see `Emulation`.
            answered: told method and path of each request that has its answer.
        """
        self._answered = answered
        directory = Directory(self._snapshot(), self._clock)
        self._emulation = Emulation(
            *(self.states, storage, directory, self._clock),
            triggers=triggers,
            reach=reach,
            ai_fixtures=ai_fixtures,
        )
        self._api = Api(
            self._emulation.parts(),
            directory,
            self._clock,
            users=self._emulation,
            node=False,
            version=__version__,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of the platform API."""
        assert self._api is not None, "requests are answered once all is there"
        await self._api(scope, receive, send)
        if self._answered is not None:
            self._answered(scope["method"], scope["path"])

    async def ask(self, path: str) -> Told:
        """GET of the admin plane of the project, as its developer."""
        from amba_run.in_process import ask

        assert self._api is not None, "`open` comes before"
        bearer = (b"authorization", f"Bearer {self._held.pat}".encode())
        target = f"/v1/admin/projects/{self._record.id}/{path}"
        return await ask(self._api, "GET", target, None, [bearer])

    def seeder(self) -> Seeder:
        """What loads a folder with seeds over this API, as its developer."""
        from amba_run.seeding import Seeder

        def session(user_id: str) -> str:
            assert self._api is not None, "`open` comes before"
            directory = self._api.directory
            return directory.mint_session(self._record.id, user_id, anonymous_id=None)

        held = self._held
        return Seeder(
            self,
            project_id=self._record.id,
            pat=held.pat,
            client_key=held.client_key,
            session=session,
        )

    async def close(self) -> None:
        """Finish what was begun, and let the state directory go. Idempotent."""
        if self._emulation is not None:
            await self._emulation.close()
        await self.states.close()

    async def _known(self, state: State) -> None:
        """What services keep belongs to a project that the database knows."""
        from amba_router.store.project_rows import ensure

        await state.database.write(lambda c: ensure(c, self._record))

    def _snapshot(self) -> Snapshot:
        held, record = self._held, self._record
        internal, signing, session = (
            (Credential(f"dev-{kind}", kind, SecretText(value), record.created_ms),)
            for kind, value in (
                (CredentialKind.INTERNAL_TOKEN, held.internal_token),
                (CredentialKind.HEADER_SIGNING_SECRET, held.signing_secret),
                (CredentialKind.SESSION_KEY, held.session_key),
            )
        )
        keys = tuple(
            (
                ApiKey(
                    f"dev-{kind}",
                    record.id,
                    kind,
                    record.environment,
                    value[:14],
                    record.created_ms,
                ),
                SecretText(value),
            )
            for kind, value in (
                (KeyType.CLIENT, held.client_key),
                (KeyType.SERVER, held.server_key),
            )
        )
        credentials = Credentials(internal, signing, session)
        pat = hashlib.sha256(held.pat.encode()).digest()
        return Snapshot(
            projects=(ProjectState(record, credentials, keys, ()),),
            pats=((pat, DeveloperId(DEVELOPER_ID)),),
        )
