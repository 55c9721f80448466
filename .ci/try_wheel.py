"""Try an installed wheel as a stranger would: an empty folder, one file, no network.

Usage: try_wheel.py AMBA_RUN FOLDER. Where the system lets us, the server runs in a network
namespace of its own with nothing but loopback in it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

FETCH = """
import json, urllib.request
origin = json.loads(open("ready.json").readline())["origin"]
host = "local.fn.localhost:" + origin.rpartition(":")[2]
request = urllib.request.Request(origin + "/hello", headers={"Host": host})
print(urllib.request.urlopen(request, timeout=5).read().decode())
"""


def offline() -> list[str]:
    """The command prefix that cuts the network, or nothing where that is not allowed."""
    prefix = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"], check=False).returncode:
        return [*prefix, "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    return []


def main() -> int:
    """Serve, ask, compare, stop."""
    amba_run, folder = sys.argv[1], Path(sys.argv[2])
    (folder / "hello.js").write_text(
        "export default { fetch: (req, env) => new Response(env.AMBA_PROJECT_ID) };\n"
    )
    prefix = offline() if shutil.which("ip") else []
    # the asking happens inside the same namespace: one shell runs the server and the question
    script = """
        "$0" dev --port 0 --ephemeral --json --no-watch > ready.json & pid=$!
        for _ in $(seq 40); do [ -s ready.json ] && break; sleep 0.25; done
        "$1" -c "$2"; code=$?
        kill -TERM $pid; wait $pid; exit $code
    """
    done = subprocess.run(
        [*prefix, "sh", "-c", script, amba_run, sys.executable, FETCH],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ready = json.loads((folder / "ready.json").read_text().splitlines()[0])
    where = "in a namespace without a network" if prefix else "with the network in place"
    if done.returncode or done.stdout.strip() != ready["project"]["id"]:
        print(done.stdout, done.stderr, sep="\n")
        print(f"the wheel does not serve {where}")
        return 1
    print(f"the wheel serves {where}: {done.stdout.strip()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
