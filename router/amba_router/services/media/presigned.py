"""Presigned URLs: one PUT or GET of one object, signed with the project's session keys.

All that a URL allows is in it and covered by the MAC. A session key that is rotated away takes
its URLs with it. The form is ours (contract E.7 says what they promise, not how they look).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from amba_router.api import faults
from amba_router.api.operations import Query

_PURPOSE = b"amba-run presigned URL, 1"
_TEXT = {"type": "string"}

QUERY = (
    Query("expires", _TEXT, "when it ends, Unix seconds", required=True),
    Query("upload", _TEXT, "the upload that it is for"),
    Query("user", _TEXT, "the user that it was made for"),
    Query("size", _TEXT, "bytes of the body, exactly"),
    Query("type", _TEXT, "content type of the body"),
    Query("signature", _TEXT, "HMAC-SHA256 over all of it, hex", required=True),
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a URL allows.

    Attributes:
        method: PUT or GET.
        upload: the upload's id; "" is none.
        user: for whom it was made; "" is the project itself.
        size: bytes of the body; None is as many as a PUT may have.
        type: of the body, as it was announced; "" is any.
        expires_s: Unix seconds.
    """

    method: str
    project_id: str
    bucket: str
    key: str
    expires_s: int
    upload: str = ""
    user: str = ""
    size: int | None = None
    type: str = ""

    @property
    def object_key(self) -> str:
        """The object's, in STORAGE."""
        return f"{self.bucket}/{self.key}"


def url_of(grant: Grant, origin: str, keys: Sequence[bytes]) -> str:
    """Signed with the first of the project's session keys. Args: origin: of the API."""
    values = _values(grant)
    said = {name: value for name, value in values.items() if value}
    said["signature"] = _mac(
        keys[0], _place(grant.method, grant.project_id, grant.bucket, grant.key), values
    )
    path = f"/client/storage/objects/{grant.project_id}/{grant.bucket}/{quote(grant.key, safe='')}"
    return f"{origin}{path}?{urlencode(said)}"


def read(
    method: str,
    path: Mapping[str, str],
    query: Mapping[str, str],
    keys: Sequence[bytes],
    *,
    now_s: float,
) -> Grant:
    """What a request's URL allows it.

    Args:
        keys: all session keys of the project that hold; none for one that is not there.

    Raises:
        Refused: INVALID_SIGNATURE, URL_EXPIRED.
    """
    project_id, bucket, key = path["project_id"], path["bucket"], path["key"]
    # as they were sent: nothing is made of them before the MAC has been seen to be ours
    values = {name: query.get(name, "") for name in ("expires", "upload", "user", "size", "type")}
    given = query.get("signature", "").encode("utf-8", "replace")
    place = _place(method, project_id, bucket, key)
    holds = [hmac.compare_digest(_mac(one, place, values).encode(), given) for one in keys]
    if not any(holds):
        raise faults.INVALID_SIGNATURE.refuse(
            f"this presigned URL does not allow this {method}: it was altered, is of another "
            "method, or its key was rotated; presign anew"
        )
    expires_s = int(values["expires"])
    if now_s >= expires_s:
        raise faults.URL_EXPIRED.refuse("this presigned URL has ended; presign anew")
    return Grant(
        method,
        project_id,
        bucket,
        key,
        expires_s,
        upload=values["upload"],
        user=values["user"],
        size=int(values["size"]) if values["size"] else None,
        type=values["type"],
    )


def _values(grant: Grant) -> dict[str, str]:
    return {
        "expires": str(grant.expires_s),
        "upload": grant.upload,
        "user": grant.user,
        "size": "" if grant.size is None else str(grant.size),
        "type": grant.type,
    }


def _place(method: str, project_id: str, bucket: str, key: str) -> list[str]:
    return [method, project_id, bucket, key]


def _mac(session_key: bytes, place: list[str], values: Mapping[str, str]) -> str:
    """Hex. JSON keeps the members apart, whatever is in them."""
    key = hmac.digest(session_key, _PURPOSE, hashlib.sha256)
    said = json.dumps([*place, *sorted(values.items())])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
