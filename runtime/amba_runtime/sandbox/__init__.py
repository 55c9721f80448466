"""The OS walls around an engine process: found, raised, and looked at from outside.

Tiers of reliability.md 4.2: 0 a plain child; 1 no new privileges, resource limits; 2 Landlock
and seccomp; 3 bubblewrap: namespaces, an empty read-only root, a user of its own, seccomp.
"""

from __future__ import annotations

from amba_runtime.sandbox.enclosed import Enclosed
from amba_runtime.sandbox.jail import STRONGEST, Sandbox

__all__ = ["STRONGEST", "Enclosed", "Sandbox"]
