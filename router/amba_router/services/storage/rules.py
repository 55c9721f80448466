"""What R2 allows and how it refuses: limits, conditions, ranges, multipart rules. No I/O.

Source of codes and messages: R2's error code reference and what its published emulator answers
(`put: ... (10037)` is written by workerd from our code and message).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from amba_router.store.records import Metadata, Part, Segment, StoredObject, Upload
from amba_runtime import limits

STORAGE_CLASSES = ("Standard", "InfrequentAccess")


class Fault(Enum):
    """A refusal: R2's code, HTTP status, message."""

    INTERNAL_ERROR = (10001, 500, "We encountered an internal error. Please try again.")
    NO_SUCH_KEY = (10007, 404, "The specified key does not exist.")
    ENTITY_TOO_LARGE = (
        100100,
        400,
        "Your proposed upload exceeds the maximum allowed object size.",
    )
    ENTITY_TOO_SMALL = (
        10011,
        400,
        "Your proposed upload is smaller than the minimum allowed object size.",
    )
    METADATA_TOO_LARGE = (
        10012,
        400,
        "Your metadata headers exceed the maximum allowed metadata size.",
    )
    INVALID_OBJECT_NAME = (10020, 400, "The specified object name is not valid.")
    INVALID_MAX_KEYS = (10022, 400, "MaxKeys params must be positive integer <= 1000.")
    NO_SUCH_UPLOAD = (10024, 400, "The specified multipart upload does not exist.")
    INVALID_PART = (10025, 400, "One or more of the specified parts could not be found.")
    INVALID_ARGUMENT = (10029, 400, "Metadata missing or invalid")
    PRECONDITION_FAILED = (
        10031,
        412,
        "At least one of the pre-conditions you specified did not hold.",
    )
    BAD_DIGEST = (10037, 400, "The checksum you specified did not match what we received.")
    INVALID_RANGE = (10039, 416, "The requested range is not satisfiable")
    BAD_UPLOAD = (10048, 500, "There was a problem with the multipart upload.")

    def __init__(self, code: int, status: int, message: str) -> None:
        self.code = code
        self.status = status
        self.message = message


class R2Error(Exception):
    """An operation was refused. `found` is the object a failed precondition was about."""

    def __init__(
        self, fault: Fault, message: str = "", *, found: StoredObject | None = None
    ) -> None:
        super().__init__(message or fault.message)
        self.fault = fault
        self.message = message or fault.message
        self.found = found


# --- names and sizes --------------------------------------------------------------------------


def check_key(key: str) -> bytes:
    """The key as bytes. Raises R2Error when it is empty, too long, or not Unicode."""
    try:
        data = key.encode()
    except UnicodeEncodeError as error:
        raise R2Error(Fault.INVALID_OBJECT_NAME) from error
    if not 1 <= len(data) <= limits.STORAGE_KEY.value:
        raise R2Error(Fault.INVALID_OBJECT_NAME)
    return data


def check_metadata(metadata: Metadata) -> None:
    """Raises R2Error for too much custom metadata, or a storage class R2 does not have."""
    size = sum(len(_utf8(k)) + len(_utf8(v)) for k, v in metadata.custom)
    if size > limits.STORAGE_METADATA.value:
        raise R2Error(Fault.METADATA_TOO_LARGE)
    if metadata.storage_class not in STORAGE_CLASSES:
        raise R2Error(
            Fault.INVALID_ARGUMENT,
            f"The storage class must be one of {', '.join(STORAGE_CLASSES)}.",
        )


def check_digests(given: Mapping[str, str], computed: Mapping[str, str]) -> None:
    """Raises R2Error when a checksum the function gave is not that of the bytes (both hex)."""
    for algorithm, expected in given.items():
        actual = computed[algorithm]
        if expected != actual:
            name = {"md5": "MD5"}.get(algorithm, "SHA-" + algorithm[3:])
            raise R2Error(
                Fault.BAD_DIGEST,
                f"The {name} checksum you specified did not match what we received.\n"
                f"You provided a {name} checksum with value: {expected}\n"
                f"Actual {name} was: {actual}",
            )


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# --- conditions -------------------------------------------------------------------------------


class Strength(Enum):
    """How an ETag in a condition was written: `"x"`, `W/"x"` or `*`."""

    STRONG = "strong"
    WEAK = "weak"
    WILDCARD = "wildcard"


@dataclass(frozen=True, slots=True)
class ETag:
    """One ETag of a condition; `value` is without quotes, "" for the wildcard."""

    strength: Strength
    value: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """`onlyIf`. Absent members do not ask for anything.

    Attributes:
        etag_matches: the object has one of these.
        etag_differs: the object has none of these.
        uploaded_before_ms: Unix milliseconds, exclusive.
        uploaded_after_ms: Unix milliseconds, exclusive.
        whole_seconds: compare times as HTTP dates do.
    """

    etag_matches: tuple[ETag, ...] | None = None
    etag_differs: tuple[ETag, ...] | None = None
    uploaded_before_ms: int | None = None
    uploaded_after_ms: int | None = None
    whole_seconds: bool = False


def holds(condition: Condition, found: StoredObject | None) -> bool:
    """Whether the operation may go on. As in HTTP, an ETag that decides outranks a time."""
    matches, differs = condition.etag_matches, condition.etag_differs
    before, after = condition.uploaded_before_ms, condition.uploaded_after_ms
    if found is None:
        return matches is None and after is None
    match = matches is None or _among(found.etag, matches, weak=False)
    differ = differs is None or not _among(found.etag, differs, weak=True)
    step = 1000 if condition.whole_seconds else 1
    uploaded = found.uploaded_ms // step
    is_after = after is None or after // step < uploaded or (differs is not None and differ)
    is_before = before is None or uploaded < before // step or (matches is not None and match)
    return match and differ and is_after and is_before


def require(condition: Condition | None, found: StoredObject | None) -> None:
    """Raises R2Error when the condition does not hold."""
    if condition is not None and not holds(condition, found):
        raise R2Error(Fault.PRECONDITION_FAILED, found=found)


def _among(etag: str, tags: Sequence[ETag], *, weak: bool) -> bool:
    for tag in tags:
        if tag.strength is Strength.WILDCARD:
            return True
        if tag.value == etag and (weak or tag.strength is Strength.STRONG):
            return True
    return False


# --- ranges -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range:
    """`range` of a get: offset and length, either may be absent; or the last `suffix` bytes."""

    offset: int | None = None
    length: int | None = None
    suffix: int | None = None


def resolve(asked: Range | None, size: int) -> tuple[int, int]:
    """(offset, length) inside an object of `size` bytes. Raises R2Error INVALID_RANGE."""
    if asked is None:
        return 0, size
    if asked.suffix is not None:
        length = min(asked.suffix, size)
        offset = size - length
    else:
        offset = asked.offset or 0
        length = size - offset if asked.length is None else min(asked.length, size - offset)
    if length <= 0:
        raise R2Error(Fault.INVALID_RANGE)
    return offset, length


_RANGE_HEADER = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*\Z", re.IGNORECASE)


def parse_range(header: str) -> Range | None:
    """A `Range` header of one byte range; None for anything else, which HTTP says to ignore."""
    match = _RANGE_HEADER.match(header)
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return Range(suffix=int(last)) if last else None
    if not last:
        return Range(offset=int(first))
    if int(last) < int(first):
        return None
    return Range(offset=int(first), length=int(last) - int(first) + 1)


# --- multipart --------------------------------------------------------------------------------


def admit_part(upload: Upload | None) -> None:
    """Raises R2Error when no part can be added."""
    if upload is None or not upload.open:
        raise R2Error(Fault.NO_SUCH_UPLOAD)


def admit_abort(upload: Upload | None) -> None:
    """Raises R2Error for an upload that never was; aborting twice is fine."""
    if upload is None:
        raise R2Error(Fault.INTERNAL_ERROR)


def choose_parts(
    upload: Upload | None, there: Sequence[Part], wanted: Sequence[tuple[int, str]]
) -> tuple[Upload, list[Part]]:
    """The parts of a completed object, by number.

    Args:
        upload: what the id names.
        there: the parts that were uploaded.
        wanted: (part number, etag) as the function lists them.

    Raises:
        R2Error: the upload has ended, a part is unknown or named twice, a part but the last is
            smaller than 5 MiB, or the parts but the last differ in size.
    """
    if upload is None:
        raise R2Error(Fault.INTERNAL_ERROR)
    if not upload.open:
        raise R2Error(Fault.NO_SUCH_UPLOAD)
    if len({number for number, _ in wanted}) != len(wanted):
        raise R2Error(Fault.INTERNAL_ERROR)
    known = {part.number: part for part in there}
    chosen: list[Part] = []
    for number, etag in wanted:
        part = known.get(number)
        if part is None or part.etag != etag:
            raise R2Error(Fault.INVALID_PART)
        chosen.append(part)
    if any(p.segment.size < limits.STORAGE_PART_MIN.value for p in chosen[:-1]):
        raise R2Error(Fault.ENTITY_TOO_SMALL)
    chosen.sort(key=lambda p: p.number)
    sizes = [p.segment.size for p in chosen]
    if len(set(sizes[:-1])) > 1 or (len(sizes) > 1 and sizes[-1] > sizes[0]):
        raise R2Error(Fault.BAD_UPLOAD)
    return upload, chosen


def multipart_etag(parts: Sequence[Part]) -> str:
    """MD5 of the parts' MD5s (bytes, not hex), a hyphen, and how many there are."""
    sums = hashlib.md5(usedforsecurity=False)
    for part in parts:
        sums.update(bytes.fromhex(part.etag))
    return f"{sums.hexdigest()}-{len(parts)}"


def segments_of(parts: Sequence[Part]) -> list[Segment]:
    """The blobs of a completed object; an empty part has none."""
    return [p.segment for p in parts if p.segment.size]
