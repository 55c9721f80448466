"""Whether there is a function that a trigger may be made for."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.routes import Projects


def check(projects: Projects, project_id: str, function: str, handler: str) -> None:
    """Raises `Refused` FUNCTION_NOT_FOUND, HANDLER_MISSING.

    A function of a dev server that does not build yet has told nobody its handlers: it may.
    """
    project = projects.by_id(project_id)
    route = None if project is None else project.routes.get(function.encode("utf-8", "replace"))
    if route is None:
        raise faults.FUNCTION_NOT_FOUND.refuse(
            f"no function is called {function[:64]!r}; deploy it first",
            {"resource": "function", "id": function[:64]},
        )
    if route.handlers is not None and handler not in route.handlers:
        raise faults.HANDLER_MISSING.refuse(
            f"the function {function[:64]!r} has no {handler} handler "
            f"(it has {', '.join(route.handlers) or 'none'}); export one and deploy it",
            {"resource": "function", "id": function[:64], "handlers": list(route.handlers)},
        )
