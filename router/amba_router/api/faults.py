"""Every refusal the control plane can give: a closed set, each with its status and its meaning.

An operation names those it may answer with; the OpenAPI document and the answers come from here.
Source: contract A.7, D.3, E.0 (codes); the others are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amba_router.problem import Problem
from amba_runtime.errors import AmbaRunError, InternalCode, InternalError, UserCode, UserError
from amba_runtime.violations import Violation


class Refused(Exception):
    """Ends an operation with a documented refusal."""

    def __init__(self, fault: Fault, problem: Problem) -> None:
        super().__init__(problem.message)
        self.fault = fault
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of refusal; `when` is its line in the documentation."""

    status: int
    code: str
    kind: str
    when: str

    def refuse(
        self,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> Refused:
        """The exception to raise. Args: message: what, where, and what to do."""
        extra = ((b"www-authenticate", b"Bearer"),) if self.status == 401 else ()
        problem = Problem(
            self.status,
            self.code,
            self.kind,
            message,
            details or {},
            retry_after_s=retry_after_s,
            extra=extra,
        )
        return Refused(self, problem)


def _input(code: str, when: str, status: int = 400) -> Fault:
    return Fault(status, code, "invalid_request", when)


def _missing(code: str, when: str) -> Fault:
    return Fault(404, code, "not_found", when)


# who asks
UNAUTHORIZED = Fault(401, "UNAUTHORIZED", "auth", "no credential")
INVALID_TOKEN = Fault(401, "INVALID_TOKEN", "auth", "an unknown token or key")
INVALID_INTERNAL_TOKEN = Fault(
    401, "INVALID_INTERNAL_TOKEN", "auth", "an unknown or revoked internal token, or one used here"
)
WRONG_PROJECT = Fault(403, "WRONG_PROJECT", "auth", "a token or key of another project")
PROJECT_FORBIDDEN = Fault(403, "PROJECT_FORBIDDEN", "auth", "not this caller's to do")

# what is asked for
NOT_FOUND = _missing("NOT_FOUND", "no such path, or nothing of that name")
PROJECT_NOT_FOUND = _missing("PROJECT_NOT_FOUND", "no such project")
FUNCTION_NOT_FOUND = _missing("FUNCTION_NOT_FOUND", "never deployed in this project")
VERSION_NOT_FOUND = _missing("VERSION_NOT_FOUND", "this function never had that version")
DEPLOYMENT_NOT_FOUND = _missing("DEPLOYMENT_NOT_FOUND", "no such deployment in this project")
SECRET_NOT_FOUND = _missing("SECRET_NOT_FOUND", "no such secret in this scope")
API_KEY_NOT_FOUND = _missing("API_KEY_NOT_FOUND", "no such key in this project")
CREDENTIAL_NOT_FOUND = _missing("CREDENTIAL_NOT_FOUND", "no such credential in this project")
USER_NOT_FOUND = _missing("USER_NOT_FOUND", "this project has no such user")
PAT_NOT_FOUND = _missing("PAT_NOT_FOUND", "this developer has no such token")
METHOD_NOT_ALLOWED = _input("METHOD_NOT_ALLOWED", "see `Allow`", 405)

# what was sent
INVALID_INPUT = _input("INVALID_INPUT", "the body or a parameter is not what it must be")
INVALID_JSON = _input("INVALID_JSON", "the body is not JSON, or too deep")
INVALID_NAME = _input("INVALID_NAME", "a name breaks its rule")
RESERVED_NAME = _input("RESERVED_NAME", "a name is the platform's own")
INVALID_VALUE = _input("INVALID_VALUE", "a value is too long, or not of its type")
INVALID_RATE_LIMIT = _input("INVALID_RATE_LIMIT", "the three members or what they may be")
INVALID_LIMITS = _input("INVALID_LIMITS", "an unknown limit, or a value out of range")
INVALID_METADATA = _input("INVALID_METADATA", "an upload's metadata is not what it must be")
INVALID_UPLOAD = _input("INVALID_UPLOAD", "the multipart body or one of its parts")
INVALID_SINCE = _input("INVALID_SINCE", "not a time")
INVALID_UNTIL = _input("INVALID_UNTIL", "not a time")
INVALID_LIMIT = _input("INVALID_LIMIT", "not a number within its range")
CONFIRM_REQUIRED = _input("CONFIRM_REQUIRED", "`confirm` must repeat the name")
BODY_INCOMPLETE = _input("BODY_INCOMPLETE", "the client ended before its body did")
INVALID_ENCODING = _input("INVALID_ENCODING", "the body is not the gzip it says it is")
DEPLOY_REJECTED = _input("DEPLOY_REJECTED", "the bundle breaks rules: `details.violations`")
REQUEST_TIMEOUT = _input("REQUEST_TIMEOUT", "the body did not come in time", 408)
PAYLOAD_TOO_LARGE = _input("PAYLOAD_TOO_LARGE", "the body passes its limit", 413)
UNSUPPORTED_MEDIA_TYPE = _input("UNSUPPORTED_MEDIA_TYPE", "content type or encoding", 415)
NAME_TAKEN = Fault(409, "NAME_TAKEN", "conflict", "the slug belongs to another project")
CONFLICT = Fault(409, "CONFLICT", "conflict", "the state changed meanwhile, or does not allow it")
TOO_MANY_DEPLOYS = Fault(
    429, "TOO_MANY_DEPLOYS", "rate_limit", "too many deploys of one function wait"
)

# users and segments
INVALID_EMAIL = _input("INVALID_EMAIL", "not an address of the form name@example.com")
WEAK_PASSWORD = _input("WEAK_PASSWORD", "a password is too short")
INVALID_TIMEZONE = _input("INVALID_TIMEZONE", "not the name of an IANA time zone")
INVALID_CURSOR = _input("INVALID_CURSOR", "not a cursor that this list gave out")
INVALID_SEGMENT_RULES = _input("INVALID_SEGMENT_RULES", "a segment's rules: `details.field`")
SEGMENT_RULES_TOO_DEEP = _input("SEGMENT_RULES_TOO_DEEP", "groups within groups, over five deep")
SEGMENT_NOT_FOUND = _missing("SEGMENT_NOT_FOUND", "this project has no such segment")
INVALID_CREDENTIALS = Fault(
    401, "INVALID_CREDENTIALS", "auth", "no user has this address and this password"
)
USER_EXISTS = Fault(409, "USER_EXISTS", "conflict", "a user of this project has the address")
MAU_CAP_REACHED = Fault(
    429, "MAU_CAP_REACHED", "rate_limit", "the project has as many users as it may"
)

# collections
COLLECTION_NOT_FOUND = _missing("COLLECTION_NOT_FOUND", "this project has no such collection")
ROW_NOT_FOUND = _missing("ROW_NOT_FOUND", "no such row, or not this user's")
COLLECTION_EXISTS = Fault(409, "COLLECTION_EXISTS", "conflict", "a collection has this name")
INVALID_SCHEMA = _input("INVALID_SCHEMA", "a column, an index, or a change of one")
INVALID_COLUMN = _input("INVALID_COLUMN", "a row names a column that is not there")
BATCH_TOO_LARGE = _input(
    "BATCH_TOO_LARGE", "more rows or events than one call takes; nothing was written", 413
)
ROW_CONFLICT = Fault(
    409, "ROW_CONFLICT", "conflict", "a unique index or a reference stands against it"
)
AS_USER_MISMATCH = Fault(
    403, "AS_USER_MISMATCH", "auth", "a row of another user than the one who is asked for"
)

# queries of collections
INVALID_FILTER = _input("INVALID_FILTER", "what a list is narrowed by: see `details.field`")
INVALID_QUERY = _input("INVALID_QUERY", "an option of a query is not what it must be")
# email
INVALID_BODY = _input("INVALID_BODY", "a user's mail is not what it must be")

# media
INVALID_SIGNATURE = Fault(
    403,
    "INVALID_SIGNATURE",
    "auth",
    "a presigned URL that we did not sign so, or no longer hold to",
)
URL_EXPIRED = Fault(403, "URL_EXPIRED", "auth", "a presigned URL after its end")
UPLOAD_NOT_FOUND = _missing("UPLOAD_NOT_FOUND", "no such upload, or it was given up")
ASSET_NOT_FOUND = _missing("row_not_found", "no such asset in this project")
OBJECT_NOT_FOUND = _missing("object_not_found", "no such object in this project")
UPLOAD_INCOMPLETE = Fault(409, "UPLOAD_INCOMPLETE", "conflict", "its object was not put yet")
UPLOAD_DONE = Fault(409, "UPLOAD_DONE", "conflict", "the object is there already")
SIZE_MISMATCH = _input("SIZE_MISMATCH", "the body is shorter than was presigned")
# AI (contract E.10)
PROVIDER_NOT_FOUND = _missing("PROVIDER_NOT_FOUND", "this provider has no key in this project")
PROVIDER_HAS_PROMPTS = Fault(
    409, "PROVIDER_HAS_PROMPTS", "conflict", "prompts of this provider are there still"
)
PROMPT_NOT_FOUND = _missing("PROMPT_NOT_FOUND", "this project has no such prompt")
PROMPT_EXISTS = Fault(409, "PROMPT_EXISTS", "conflict", "a prompt of this name is there already")
NOT_CLIENT_INVOKABLE = Fault(403, "not_client_invokable", "auth", "not a prompt for clients")
MISSING_VARIABLES = _input("MISSING_VARIABLES", "a prompt's variables without a value: `missing`")
AI_BUDGET_EXCEEDED = Fault(
    402, "AI_BUDGET_EXCEEDED", "quota", "the prompt has spent its budget in US dollars"
)
AI_FIXTURE_INVALID = Fault(
    500, "AI_FIXTURE_INVALID", "internal", "a recorded reply is not what it must be"
)
AI_PROVIDER_FAILED = Fault(502, "AI_PROVIDER_FAILED", "internal", "a real provider gave no answer")

# EDGE_DB_PROXY
UNSUPPORTED_SQL = _input("UNSUPPORTED_SQL", "SQL that the database binding does not take")
STATEMENT_TIMEOUT = _input("STATEMENT_TIMEOUT", "a statement took too long; nothing changed", 408)
RESULT_TOO_LARGE = _input("RESULT_TOO_LARGE", "a statement gives or changes too many rows", 413)

# schedules and queues
INVALID_CRON = _input("INVALID_CRON", "not five fields of cron, or dates that never come")
SCHEDULE_NOT_FOUND = _missing("SCHEDULE_NOT_FOUND", "this project has no such schedule")
HANDLER_MISSING = _input("HANDLER_MISSING", "the function does not export the handler")
QUEUE_NOT_BOUND = _missing("QUEUE_NOT_BOUND", "no function consumes this queue")
QUEUE_FULL = Fault(429, "QUEUE_FULL", "rate_limit", "the queue has as many messages as it may")
INVALID_DELAY = _input("INVALID_DELAY", "`delay_seconds` is not from 0 to 43,200")
INVALID_IDEMPOTENCY_KEY = _input(
    "INVALID_IDEMPOTENCY_KEY", "not 1 to 256 characters that can be printed"
)

# what is not here, and what fails
NOT_EMULATED = Fault(501, "NOT_EMULATED", "not_emulated", "not in this release, named in message")
INTERNAL = Fault(500, "INTERNAL", "internal", "we failed; the log says why, by request id")
BLOB_DAMAGED = Fault(500, "BLOB_DAMAGED", "internal", "a stored bundle is not what was stored")
SECRET_DAMAGED = Fault(500, "SECRET_DAMAGED", "internal", "a stored secret cannot be opened")
OVERLOADED = Fault(503, "OVERLOADED", "internal", "too much at once; try again")
STATE_READ_ONLY = Fault(503, "STATE_READ_ONLY", "internal", "the state directory takes no writes")
DISK_FULL = Fault(507, "DISK_FULL", "internal", "no space is left; nothing was changed")

# fan-out
SEGMENT_OR_FUNCTION_NOT_FOUND = _missing(
    "segment_or_function_not_found", "no such segment, or no such function, in this project"
)

# remote config

# currencies
CURRENCY_NOT_FOUND = _missing("CURRENCY_NOT_FOUND", "no such currency in this project")
INSUFFICIENT_BALANCE = Fault(
    409, "INSUFFICIENT_BALANCE", "conflict", "less is there than would be spent"
)
MAX_BALANCE_EXCEEDED = Fault(
    409, "MAX_BALANCE_EXCEEDED", "conflict", "more would be there than may be"
)

FAULTS: tuple[Fault, ...] = tuple(value for value in globals().values() if isinstance(value, Fault))
"""All of them."""

ALWAYS = (METHOD_NOT_ALLOWED, INTERNAL, OVERLOADED)
READS = (BLOB_DAMAGED, SECRET_DAMAGED)
WRITES = (CONFLICT, STATE_READ_ONLY, DISK_FULL)
BODIES = (
    *(INVALID_JSON, INVALID_INPUT, BODY_INCOMPLETE, INVALID_ENCODING),
    *(REQUEST_TIMEOUT, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE),
)

_OF_STORE = {
    UserCode.CONFLICT: CONFLICT,
    UserCode.OVERLOADED: OVERLOADED,
    UserCode.NAME_TAKEN: NAME_TAKEN,
    UserCode.INVALID_NAME: INVALID_NAME,
    UserCode.RESERVED_NAME: RESERVED_NAME,
    UserCode.INVALID_RATE_LIMIT: INVALID_RATE_LIMIT,
    UserCode.STATE_READ_ONLY: STATE_READ_ONLY,
    UserCode.DISK_FULL: DISK_FULL,
    UserCode.NOT_EMULATED: NOT_EMULATED,
    InternalCode.BLOB_DAMAGED: BLOB_DAMAGED,
    InternalCode.SECRET_DAMAGED: SECRET_DAMAGED,
}


def refusal_of(error: AmbaRunError) -> Refused:
    """The one table from our exceptions to the wire; what it does not name is `INTERNAL`.

    An internal error's own words stay in the log: they may name a path of this machine.
    """
    if isinstance(error, UserError):
        fault = _OF_STORE.get(error.code)
        if fault is not None:
            said = f"{error.message}; {error.hint}" if error.hint else error.message
            if fault.status >= 500 and fault not in (NOT_EMULATED, OVERLOADED):
                said = fault.when
            retry = 1 if fault.status == 503 else None
            return fault.refuse(said, dict(error.details), retry_after_s=retry)
    elif isinstance(error, InternalError):
        fault = _OF_STORE.get(error.code)
        if fault is not None:
            return fault.refuse(fault.when)
    return INTERNAL.refuse("amba-run failed; its log says why")


def no_user(user_id: str, then: str = "") -> Refused:
    """USER_NOT_FOUND. Args: then: what was not done, such as `nothing was sent`."""
    said = f"this project has no user {user_id[:64]!r}"
    return USER_NOT_FOUND.refuse(
        f"{said}; {then}" if then else said, {"resource": "user", "id": user_id[:64]}
    )


def no_segment(segment_id: str, field: str = "") -> Refused:
    """SEGMENT_NOT_FOUND. Args: field: where a body names it."""
    details = {"resource": "segment", "id": segment_id[:64]}
    return SEGMENT_NOT_FOUND.refuse(
        f"this project has no segment {segment_id[:64]!r}; list them to see their ids",
        {**details, "field": field} if field else details,
    )


def rejected(violations: tuple[Violation, ...]) -> Refused:
    """`DEPLOY_REJECTED` with every reason. Source: contract D.3, S1 (`upstream_status`)."""
    first = violations[0]
    where = f"{first.place}: " if first.place else ""
    more = len(violations) - 1
    also = f" (and {more} more: see details.violations)" if more else ""
    return DEPLOY_REJECTED.refuse(
        f"{where}{first.message}{also}; fix: {first.fix}",
        {"upstream_status": 400, "violations": [v.as_json() for v in violations]},
    )
