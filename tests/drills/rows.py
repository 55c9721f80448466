"""Issue 5, line 8: what an inserted row and a read one cost over HTTP, beside the disk's own fsync
and moto's DynamoDB."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

from tests.drills.figures import Figure, at_least, at_most
from tests.drills.nodes import DrillError, NodeProcess, create_project

TIMES = 400
CONNECTIONS = 32
FOR_S = 4.0
LETTERS = {
    "name": "letters",
    "columns": [{"name": "title", "type": "text"}, {"name": "score", "type": "integer"}],
}
ROW = json.dumps({"title": "Dear Ann, " + "x" * 100, "score": 7}).encode()


def run(folder: Path) -> list[Figure]:
    """One node, one collection."""
    disk_ms = fsync_ms(folder)
    with NodeProcess(folder / "state") as node:
        project, _ = create_project(node, "Shop")
        api = node.api(project)
        api.post(api.at("collections"), LETTERS)
        path = f"/v1/admin/projects/{project}/collections/letters/rows"
        headers = {"authorization": f"Bearer {node.pat}", "content-type": "application/json"}
        inserts, ids = _timed(node.port, "POST", [path] * TIMES, headers, ROW)
        reads, _ = _timed(node.port, "GET", [f"{path}/{id_}" for id_ in ids], headers, None)
        per_s = _inserted_per_s(node.port, path, headers)
    peer = _dynamodb(folder)
    insert_ms, read_ms = statistics.median(inserts), statistics.median(reads)
    return [
        Figure("8", "fsync of this disk, p50", f"{disk_ms:.2f} ms"),
        Figure("8", "insert, p50", f"{insert_ms:.2f} ms"),
        at_most("8", "insert over the fsync, p50", round(insert_ms - disk_ms, 2), 3, " ms"),
        at_most("8", "read by id, p50", round(read_ms, 2), 1.5, " ms"),
        at_least("8", f"inserts at {CONNECTIONS} connections", round(per_s), 800, "/s"),
        Figure("8", "moto's DynamoDB: put, get, p50", peer),
    ]


def fsync_ms(folder: Path) -> float:
    """What the disk takes for 4 KiB that are appended and flushed."""
    took: list[float] = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            began = perf_counter()
            os.fsync(file.fileno())
            took.append((perf_counter() - began) * 1000)
    return statistics.median(took)


def _timed(
    port: int, method: str, paths: list[str], headers: dict[str, str], body: bytes | None
) -> tuple[list[float], list[str]]:
    """Milliseconds of each on one connection, and the ids told."""
    took: list[float] = []
    ids: list[str] = []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for path in paths:
            began = perf_counter()
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            raw = answer.read()
            took.append((perf_counter() - began) * 1000)
            assert answer.status in (200, 201), raw
            ids.append(json.loads(raw)["data"]["id"])
    return took, ids


def _inserted_per_s(port: int, path: str, headers: dict[str, str]) -> float:
    """By a child of ours: threads of this process would be what is measured."""
    program = (Path(__file__).parent / "rows_load.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", program, str(port), path, json.dumps(headers), ROW.decode(),
         str(CONNECTIONS), str(FOR_S)],
        capture_output=True, text=True, timeout=FOR_S + 30, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise DrillError(done.stderr)
    return float(done.stdout)


def _dynamodb(folder: Path) -> str:
    """moto's server in an environment of its own, asked with the same client."""
    if importlib.util.find_spec("venv") is None:
        return "not measured: this Python has no venv"
    place = Path(tempfile.gettempdir()) / "amba-drill-moto"
    python = place / "bin" / "python"
    if not (place / "bin" / "moto_server").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        installed = subprocess.run(
            [python, "-m", "pip", "install", "-q", "moto[server,dynamodb]"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if installed.returncode != 0:
            return "not measured: moto could not be installed"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "moto.log").open("w")
    server = subprocess.Popen(
        [place / "bin" / "moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    )
    try:
        until = monotonic() + 20
        while monotonic() < until:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            sleep(0.1)
        return _asked_dynamodb(port)
    finally:
        server.terminate()
        server.wait(10)
        log.close()


def _asked_dynamodb(port: int) -> str:
    """Put and get of one item, signed by nobody: moto does not look."""

    def call(connection: http.client.HTTPConnection, target: str, body: dict[str, Any]) -> float:
        headers = {
            "x-amz-target": f"DynamoDB_20120810.{target}",
            "content-type": "application/x-amz-json-1.0",
            "authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/dynamodb/aws4",
        }
        began = perf_counter()
        connection.request("POST", "/", json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read()
        assert answer.status == 200, raw
        return (perf_counter() - began) * 1000

    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        table = {
            "TableName": "letters",
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        }
        call(connection, "CreateTable", table)
        puts: list[float] = []
        gets: list[float] = []
        for n in range(100):
            item = {"id": {"S": str(n)}, "title": {"S": "x" * 100}, "score": {"N": "7"}}
            puts.append(call(connection, "PutItem", {"TableName": "letters", "Item": item}))
        for n in range(100):
            key = {"TableName": "letters", "Key": {"id": {"S": str(n)}}}
            gets.append(call(connection, "GetItem", key))
    return f"{statistics.median(puts):.2f} ms, {statistics.median(gets):.2f} ms (in memory)"
