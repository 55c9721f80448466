"""The in-memory picture of what is served: the hot path reads it and never waits for SQL."""

from __future__ import annotations

from dataclasses import dataclass, field

from amba_router.identity import Identities
from amba_router.rate_limit import RateCounter
from amba_router.signing import Keyring
from amba_runtime.manifest import HANDLERS, FunctionName, ProjectId
from amba_runtime.pool import Slot


@dataclass(slots=True)
class Route:
    """One function of a project.

    Attributes:
        slot: the version that serves; None while there has been none that starts.
        handlers: of that version; None where nobody has told.
        counter: counts requests against its rate limit; None where it has none.
        broken: why the newest source is not what serves, as an HTML page and a message;
            set by the dev loop.
    """

    name: FunctionName
    slot: Slot | None = None
    counter: RateCounter | None = None
    broken: tuple[str, bytes] | None = None
    handlers: tuple[str, ...] | None = None


@dataclass(slots=True)
class Project:
    """A tenant: its label, its keys, its functions by the bytes of their path segment.

    `keyring` never changes for one `Project`: what is stamped and what the isolates behind its
    routes verify with belong together, so that new keys are a new `Project` with new slots.
    """

    id: ProjectId
    slug: str
    keyring: Keyring
    identities: Identities
    routes: dict[bytes, Route] = field(default_factory=lambda: dict[bytes, Route]())
    id_bytes: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.id_bytes = self.id.encode()


class Projects:
    """All projects of a node, by slug. Changed only by whoever deploys."""

    def __init__(self) -> None:
        self._by_slug: dict[str, Project] = {}
        self._by_id: dict[str, Project] = {}

    def add(self, project: Project) -> None:
        """Make a project reachable."""
        self._by_slug[project.slug] = project
        self._by_id[project.id] = project

    def remove(self, project: Project) -> None:
        """Make it unknown. Nothing when another one has its slug by now."""
        if self._by_slug.get(project.slug) is project:
            del self._by_slug[project.slug]
        if self._by_id.get(project.id) is project:
            del self._by_id[project.id]

    def get(self, slug: str) -> Project | None:
        """By its DNS label."""
        return self._by_slug.get(slug)

    def by_id(self, project_id: str) -> Project | None:
        """By its id."""
        return self._by_id.get(project_id)

    def handlers(self, project_id: str, name: str) -> tuple[str, ...] | None:
        """What the version that serves can be sent; None where nothing serves under that name."""
        project = self.by_id(project_id)
        # a name that no URL can have has no route either
        key = name.encode("utf-8", "surrogatepass")
        route = None if project is None else project.routes.get(key)
        if route is None or route.slot is None:
            return None
        return HANDLERS if route.handlers is None else route.handlers

    def all(self) -> list[Project]:
        """In order of their making."""
        return list(self._by_slug.values())
