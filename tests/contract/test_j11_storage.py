"""Contract J, check 11, the binding half: `env.STORAGE`, and the CDN that serves it."""

from __future__ import annotations

import hashlib
import json
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from tests.run.serving import Dev

pytestmark = pytest.mark.slow

CASES_MIN = 60
PHOTO = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 64
UPLOAD = "/fn/local/upload-image"


def request(
    dev: Dev, method: str, target: str, body: bytes | None = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    with dev.connection() as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body, named)
        answer = connection.getresponse()
        return answer, answer.read()


def test_contract_J_11_every_storage_case_passes_in_a_served_function(contract_dev: Dev) -> None:
    """The suite of R2 semantics, on the binding that `dev` really gives (C, H-30)."""
    cases: list[str] = json.loads(contract_dev.ask("storage-suite", "/cases"))
    assert len(cases) >= CASES_MIN
    failed: dict[str, str] = {}
    for case in cases:
        outcome = json.loads(contract_dev.ask("storage-suite", f"/run?case={quote(case)}"))
        if not outcome["ok"]:
            failed[case] = outcome["detail"]
    assert failed == {}


def test_contract_J_11_what_is_put_is_served_by_the_cdn(contract_dev: Dev) -> None:
    """Type, ETag and ranges of a stored image; gone for both once it is deleted (C, E.7)."""
    answer, body = request(
        contract_dev, "PUT", f"{UPLOAD}/photo.png", PHOTO, content_type="image/png"
    )
    assert answer.status == 201
    stored: dict[str, Any] = json.loads(body)
    etag = hashlib.md5(PHOTO, usedforsecurity=False).hexdigest()
    assert (stored["bytes"], stored["etag"]) == (len(PHOTO), etag)
    cdn = urlsplit(str(stored["url"]))
    assert cdn.hostname == "local.cdn.localhost"

    answer, body = request(contract_dev, "GET", cdn.path, host=cdn.netloc)
    assert (answer.status, body) == (200, PHOTO)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == f'"{etag}"'
    assert answer.headers["cache-control"] == "public, max-age=300"
    answer, body = request(contract_dev, "GET", f"/cdn/local{cdn.path}", range="bytes=8-15")
    assert (answer.status, body) == (206, PHOTO[8:16])
    assert answer.headers["content-range"] == f"bytes 8-15/{len(PHOTO)}"
    answer, body = request(
        contract_dev, "GET", cdn.path, host=cdn.netloc, if_none_match=f'"{etag}"'
    )
    assert (answer.status, body) == (304, b"")

    answer, body = request(contract_dev, "GET", UPLOAD)
    assert [image["name"] for image in json.loads(body)["images"]] == ["photo.png"]
    answer, body = request(contract_dev, "GET", f"{UPLOAD}/photo.png")
    assert (answer.status, body) == (200, PHOTO)

    answer, _ = request(contract_dev, "DELETE", f"{UPLOAD}/photo.png")
    assert answer.status == 204
    assert request(contract_dev, "GET", cdn.path, host=cdn.netloc)[0].status == 404
    assert request(contract_dev, "GET", f"{UPLOAD}/photo.png")[0].status == 404
