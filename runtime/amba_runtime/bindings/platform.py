"""The strings that every function gets. Source: contract C."""

from __future__ import annotations

PLATFORM_NAMES = (
    "AMBA_API_URL",
    "AMBA_PROJECT_ID",
    "AMBA_INTERNAL_TOKEN",
    "EDGE_HEADER_SIGNING_SECRET",
    "AMBA_AI_GATEWAY_URL",
    "AMBA_CDN_HOST",
)
"""Five of today's generation, and the host that 0.1.x bundles build media URLs from."""


def platform_env(
    *, api_url: str, project_id: str, internal_token: str, signing_secret: str, cdn_host: str
) -> tuple[tuple[str, str], ...]:
    """Names and values, in the contract's order.

    Args:
        api_url: origin without path or trailing slash; the AI gateway is below it (H-29).
        cdn_host: host and port that serve the project's STORAGE objects.
    """
    values = (api_url, project_id, internal_token, signing_secret, f"{api_url}/ai", cdn_host)
    return tuple(zip(PLATFORM_NAMES, values, strict=True))
