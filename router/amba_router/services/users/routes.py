"""Users on the wire: all their operations. Source: contract E.0, E.3, E.4, E.14."""

from __future__ import annotations

from amba_router.api.operations import Operation
from amba_router.services.users import routes_admin, routes_auth, routes_me
from amba_router.services.users.service import Users
from amba_router.services.users.sign_in import SignIn


def operations(sign_in: SignIn, users: Users) -> tuple[Operation, ...]:
    """Their part of the table."""
    return (
        *routes_auth.operations(sign_in, users),
        *routes_me.operations(users),
        *routes_admin.operations(users),
    )
