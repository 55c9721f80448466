"""The in-memory picture of what is served."""

from __future__ import annotations

from typing import cast

from amba_router.identity import Identities
from amba_router.routes import Project, Projects, Route
from amba_router.signing import Keyring
from amba_runtime.clock import ManualClock
from amba_runtime.manifest import HANDLERS, FunctionName, ProjectId
from amba_runtime.pool import Slot


def project(slug: str) -> Project:
    id_ = ProjectId(f"id-{slug}")
    identities = Identities(id_, session_key=b"s" * 32, clock=ManualClock())
    return Project(id_, slug, Keyring((b"k",)), identities)


def test_projects_are_found_by_their_exact_label() -> None:
    """A label that no project has is None: never a near match (B10)."""
    projects = Projects()
    one, two = project("one"), project("two")
    projects.add(one)
    projects.add(two)
    assert projects.get("one") is one
    assert projects.get("two") is two
    assert [projects.get(slug) for slug in ("", "ONE", "on", "one ", "three")] == [None] * 5
    assert projects.all() == [one, two]


def test_a_projects_routes_are_its_own() -> None:
    """Two projects never share a table of routes."""
    one, two = project("one"), project("two")
    one.routes[b"hello"] = Route(FunctionName("hello"))
    assert two.routes == {}
    assert one.routes[b"hello"] == Route(FunctionName("hello"), None, None)


def test_only_the_project_itself_is_removed() -> None:
    """One that has taken its slug meanwhile stays reachable (T1)."""
    projects = Projects()
    old, new, other = project("one"), project("one"), project("two")
    projects.add(old)
    projects.add(other)
    projects.add(new)
    projects.remove(old)
    assert projects.get("one") is new
    projects.remove(new)
    projects.remove(new)
    assert projects.get("one") is None
    assert projects.all() == [other]


def test_what_a_function_can_be_sent() -> None:
    """By the version that serves; nothing where none does, all where nobody has told."""
    projects, one = Projects(), project("one")
    projects.add(one)
    slot = cast(Slot, object())  # nothing is asked of it
    one.routes[b"told"] = Route(FunctionName("told"), slot, handlers=("queue",))
    one.routes[b"untold"] = Route(FunctionName("untold"), slot)
    one.routes[b"broken"] = Route(FunctionName("broken"))
    names = ("told", "untold", "broken", "nope")
    assert [projects.handlers("id-one", name) for name in names] == [
        ("queue",), HANDLERS, None, None,
    ]  # fmt: skip
    assert projects.handlers("id-two", "told") is None
