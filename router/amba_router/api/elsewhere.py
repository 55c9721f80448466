"""What the platform has and we do not: honest 501s by name, after authentication.

Source: contract E.0 "Out of scope", E.1 and E.3 to E.15; the paths of later issues stand here
until they are built.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from amba_router.api.operations import Auth


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OUT_OF_SCOPE = _words(
    "streaks xp achievements challenges leaderboards leagues catalog stores inventory "
    "referrals feeds friends groups messaging reviews moderation roles sessions "
    "onboarding deep-links flags content entitlements sync sites billing payments "
    "service-accounts promotion-bundles integrations webhooks app-mcp push"
)
"""Segments under a project and under `/client`. Source: contract E.0."""

ADMIN_LATER = _words("analytics schema")
"""Under a project. Source: contract D.7, E.13, G.1."""

CLIENT_LATER = _words("queue")
"""Under `/client`."""

SIGN_INS_LATER = _words("social link magic-link otp sms")
"""Under `/client/auth`. Source: contract E.3."""

USERS_LATER = _words("export exports bulk-update")
"""Under `/users` of a project. Source: contract E.4."""

LATER_EXACT: Mapping[tuple[str, ...], Auth] = MappingProxyType(
    {
        ("auth", "developer", "signup"): Auth.NOBODY,
        ("auth", "developer", "login"): Auth.NOBODY,
        ("auth", "developer", "refresh"): Auth.NOBODY,
        ("auth", "developer", "logout"): Auth.NOBODY,
    }
)
"""Single paths, and who may ask."""


NODE_ALONE = _words(
    "api-keys provisioning-status reprovision internal-credentials functions secrets"
)
"""Under a project, where there is no control plane: a dev server. Source: contract E.1, E.2."""


def of_a_node(segments: tuple[str, ...]) -> tuple[Auth, str] | None:
    """As `needed_for`, of what the control plane answers."""
    match segments:
        case ("admin", "projects"):
            return Auth.DEVELOPER, ""
        case ("admin", "projects", project):
            return Auth.PROJECT, project
        case ("admin", "projects", project, feature, *_) if feature in NODE_ALONE:
            return Auth.PROJECT, project
        case ("auth", "validate") | ("auth", "developer", "pats", *_):
            return Auth.NOBODY, ""
        case _:
            return None


def needed_for(segments: tuple[str, ...]) -> tuple[Auth, str] | None:
    """Who may be told 501, and the project in the path; None for a path of nobody's.

    Args:
        segments: of the path, without `v1`; no operation has it.
    """
    exact = LATER_EXACT.get(segments)
    if exact is not None:
        return exact, ""
    match segments:
        case ("admin", "projects", project, feature, *_) if (
            feature in OUT_OF_SCOPE or feature in ADMIN_LATER
        ):
            return Auth.PROJECT, project
        case ("admin", "projects", project, "users", feature) if feature in USERS_LATER:
            return Auth.PROJECT, project
        case ("admin", "projects", project, "users", _, "entitlements", *_):
            return Auth.PROJECT, project
        case ("client", "auth", kind, *_) if kind in SIGN_INS_LATER:
            return Auth.CLIENT, ""
        case ("client", "auth", "email", "otp", *_):
            return Auth.CLIENT, ""
        case ("client", feature, *_) if feature in OUT_OF_SCOPE or feature in CLIENT_LATER:
            return Auth.SESSION, ""
        case _:
            return None
