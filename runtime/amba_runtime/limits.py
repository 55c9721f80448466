"""Every number of the platform, each with its unit and where it comes from.

Nothing else in the four packages holds a maximum, a deadline or a size. A limit marked
`setting` can be set per project or function in `amba.toml` (interface.md section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limit:
    """One number: its value in `unit`, what it bounds, and its source."""

    value: int
    unit: str
    bounds: str
    source: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """One duration in seconds: what it bounds, and its source."""

    value: float
    bounds: str
    source: str


# --- the wire between us and an engine process ---
WIRE_BUFFER = Limit(256 * KIB, "bytes", "body bytes held per direction and exchange", "ours")
WIRE_HEAD = Limit(512 * KIB, "bytes", "head of a request from an engine", "ours")
WIRE_BACKLOG = Limit(1024, "connections", "waiting to be accepted on a Unix socket", "ours")
WIRE_IDLE_CONNECTIONS = Limit(256, "connections", "kept idle per engine process", "ours")
WIRE_IDLE_S = Deadline(2.0, "an idle connection to an engine is used again", "engines.md 2")

# --- one invocation ---
LOG_BYTES = Limit(256 * KIB, "bytes", "console lines kept per invocation", "reliability.md 2.3")
LOG_LINE_BYTES = Limit(16 * KIB, "bytes", "one console line", "reliability.md 2.3")
LOG_LINES = Limit(10_000, "lines", "console lines kept per invocation", "ours")
LOG_HEADER_BYTES = Limit(24 * KIB, "bytes", "console lines handed back on the answer", "ours")

# --- engine processes ---
SPAWN_S = Deadline(10.0, "the spawner starts a process", "ours")
START_S = Deadline(10.0, "a bundle evaluates its top level and describes itself", "ours")
STOP_S = Deadline(0.5, "an engine process ends after it was asked to", "ours")
HEAP_SHARE = Limit(75, "%", "of memory_mib that JavaScript's own heap may fill", "measured")
HEAP_FIRST = Limit(
    16, "MiB", "of heap before its first whole collection; an eighth if less", "measured"
)
HEAP_YOUNG = Limit(2, "MiB", "of each half of the heap of young objects", "measured")
STDERR_LINES = Limit(200, "lines", "of an engine's own stderr kept for a reason of death", "ours")
CONTROL_BYTES = Limit(16 * MIB, "bytes", "an answer on the control socket", "ours")
LOG_PIECE = Limit(
    500, "lines", "of one invocation told in one go; others run between", "ours; 1 ms"
)
LOG_POST_BYTES = Limit(2 * MIB, "bytes", "one batch of late console lines", "ours")
LOG_TOLD_BYTES = Limit(2 * MIB, "bytes", "of such batches, kept of one invocation", "ours")
WEBSOCKET_BYTES = Limit(32 * MIB, "bytes", "one WebSocket message", "production; workerd's own")
WEBSOCKET_OPEN_S = Deadline(60.0, "a guest answers a WebSocket request", "reliability.md 2.3")
REFUSAL_BYTES = Limit(
    1 * MIB, "bytes", "the body of a guest's answer that refuses a WebSocket", "ours"
)

RESTART_WAIT_S = Deadline(0.1, "before the second restart of a crashing isolate", "reliability E32")
RESTART_WAIT_MAX_S = Deadline(30.0, "between restarts of a crashing isolate", "reliability E32")
RESTART_FORGIVE_S = Deadline(60.0, "an isolate that lived this long starts afresh", "ours")
DRAIN_S = Deadline(30.0, "a retired version finishes what it had begun", "reliability.md 2.2")
INFLIGHT = Limit(2048, "requests", "under way in one version at once", "ours")
DISCONNECT_WATCH_S = Deadline(
    0.02, "before a waiting request is watched for a client that left", "ours"
)
JOURNAL_FLUSH_S = Deadline(0.05, "between an answer and its request event", "interface.md 3")
JOURNAL_PIECES = Limit(40, "pieces", "of lines waiting to be told, of all", "ours; 30 ms")
JOURNAL_EARLY_BYTES = Limit(16 * MIB, "bytes", "of lines of those without an answer", "ours")
JOURNAL_EVENTS = Limit(10_000, "events", "invocations waiting to be told", "ours")
TOKEN_CACHE = Limit(4096, "tokens", "verified credentials remembered per project", "ours")
EDGE_HEAD = Limit(64 * KIB, "bytes", "request line and headers", "reliability.md 2.3")
EDGE_HEADERS = Limit(200, "headers", "of one request", "reliability.md 2.3")
EDGE_TARGET = Limit(16 * KIB, "bytes", "request target", "reliability.md 2.3")
EDGE_KEEP_ALIVE_S = Deadline(75.0, "an idle connection from a client is kept", "ours")
WATCH_DEBOUNCE_MS = Limit(10, "ms", "file changes that are taken together", "libraries.md")
WATCH_STEP_MS = Limit(2, "ms", "quiet after a change before it is told", "libraries.md")
REBUILDS_AT_ONCE = Limit(4, "builds", "and starts at once", "ours")
OUTPUT_BLOCKS = Limit(10_000, "blocks", "of output waiting for a slow reader", "ours")
OUTPUT_CLOSE_S = Deadline(0.2, "the last output is waited for", "ours")
OPEN_FILES = Limit(65_536, "files", "soft limit that a server asks for", "ours")
SHUTDOWN_S = Deadline(0.7, "Ctrl-C until everything has ended", "issue 2: within a second")

# --- what a user's folder says: amba.toml, secrets files, discovery, verify ---
CONFIG_FILE_BYTES = Limit(MIB, "bytes", "amba.toml, pyproject.toml or a secrets file", "ours")
SECRET_NAME_CHARS = Limit(64, "characters", "name of a secret", "contract C.2, H-11")
SECRET_VALUE_BYTES = Limit(64 * KIB, "bytes", "value of a secret", "contract C.2")
SECRETS_BLANKS = Limit(256, "characters", "blanks in a row in a secrets file", "ours")
PROBLEMS_SHOWN = Limit(50, "problems", "listed in the message of one error", "ours")
FOLDER_ENTRIES = Limit(4096, "entries", "files and folders looked at in PATH", "ours")
RATE_LIMIT_WINDOW_MAX_S = Limit(3600, "seconds", "window of a rate limit", "contract D.8")
RATE_LIMIT_MAX = Limit(100_000, "requests", "max of a rate limit", "contract D.8")
VERIFY_TEXT_BYTES = Limit(MIB, "bytes", "headers given to amba-run verify", "ours")


@dataclass(frozen=True, slots=True)
class Setting:
    """One limit that `amba.toml` can set.

    Attributes:
        dev, hosted: the defaults; 0 only where `off` is true.
        minimum, maximum: what may be written, both inclusive; 0 besides where `off` is true.
        off: 0 switches this limit off. True for the four clocks of an invocation alone: every
            other limit guards the machine or bounds a loop, and 0 could be read as "none at all".
    """

    name: str
    unit: str
    dev: int
    hosted: int
    minimum: int
    maximum: int
    off: bool
    bounds: str
    source: str


_R = "reliability.md 2.3; interface.md 4; maximum ours"

SETTINGS = (
    Setting("cpu_ms", "ms", 0, 10_000, 1, 300_000, True, "CPU time per invocation", _R),
    Setting("first_byte_ms", "ms", 60_000, 25_000, 1, 3_600_000, True, "to the first byte", _R),
    Setting("idle_ms", "ms", 60_000, 30_000, 1, 3_600_000, True, "between two chunks", _R),
    Setting("total_ms", "ms", 0, 300_000, 1, 86_400_000, True, "one invocation in all", _R),
    Setting("startup_ms", "ms", 1_000, 1_000, 1, 60_000, False, "CPU time of the top level", _R),
    Setting("memory_mib", "MiB", 512, 256, 64, 4_096, False, "memory of one worker", _R),
    Setting("request_body_mib", "MiB", 100, 100, 1, 4_096, False, "one request's body", _R),
    Setting("response_header_kib", "KiB", 64, 64, 1, 256, False, "one answer's headers", _R),
    Setting("subrequests", "", 1_000, 1_000, 1, 10_000, False, "fetches per invocation", _R),
    Setting("subrequests_at_once", "", 6, 6, 1, 100, False, "fetches in flight", _R),
    Setting("concurrency", "", 100, 50, 1, 1_000, False, "invocations at once", _R),
    Setting("log_kib", "KiB", 256, 256, 1, 1_024, False, "console lines per invocation", _R),
    Setting("trace_depth", "", 16, 16, 1, 64, False, "functions calling functions", _R),
)
"""The 13 limits of interface.md section 4, in its order."""


@dataclass(frozen=True, slots=True)
class FunctionLimits:
    """The limits in force for one function; units in the names, 0 = off (the four clocks only)."""

    cpu_ms: int
    first_byte_ms: int
    idle_ms: int
    total_ms: int
    startup_ms: int
    memory_mib: int
    request_body_mib: int
    response_header_kib: int
    subrequests: int
    subrequests_at_once: int
    concurrency: int
    log_kib: int
    trace_depth: int

    @classmethod
    def dev(cls) -> FunctionLimits:
        """The defaults of `amba-run dev`."""
        return cls(**{setting.name: setting.dev for setting in SETTINGS})

    @classmethod
    def hosted(cls) -> FunctionLimits:
        """The defaults of `amba-run node`."""
        return cls(**{setting.name: setting.hosted for setting in SETTINGS})

    def override(self, values: Mapping[str, int]) -> FunctionLimits:
        """These limits with some replaced; keys are names of settings, values already checked."""
        return replace(self, **values)

    def clamp(self, maxima: FunctionLimits) -> FunctionLimits:
        """No limit above the node's own; an off limit becomes the node's."""
        lowered: dict[str, int] = {}
        for setting in SETTINGS:
            mine: int = getattr(self, setting.name)
            most: int = getattr(maxima, setting.name)
            lowered[setting.name] = min(mine, most) if mine and most else mine or most
        return FunctionLimits(**lowered)

    @property
    def request_body_bytes(self) -> int:
        return self.request_body_mib * MIB

    @property
    def response_header_bytes(self) -> int:
        return self.response_header_kib * KIB

    @property
    def log_bytes(self) -> int:
        return self.log_kib * KIB


# --- STORAGE and the store behind it ---
STORAGE_KEY = Limit(1024, "bytes", "UTF-8 of one object key", "R2 platform limits")
STORAGE_METADATA = Limit(8192, "bytes", "UTF-8 of all custom metadata", "R2 platform limits")
STORAGE_VALUE = Limit(5 * KIB * MIB - 5 * MIB, "bytes", "one put or part", "R2 platform limits")
STORAGE_PART_MIN = Limit(5 * MIB, "bytes", "every part but the last, at least", "R2 multipart docs")
STORAGE_PARTS = Limit(10_000, "parts", "in one multipart upload", "R2 multipart docs")
STORAGE_LIST = Limit(1000, "keys", "one page of a list", "R2 Workers API reference")
STORAGE_DELETE = Limit(1000, "keys", "one delete", "R2 Workers API reference")
STORAGE_LIST_JSON = Limit(896 * KIB, "bytes", "one list answer", "workerd refuses over 1 MiB")
STORAGE_REQUEST_JSON = Limit(8 * MIB, "bytes", "JSON of one request: 1,000 escaped keys", "ours")
STORAGE_UPLOAD_S = Deadline(7 * 86400.0, "an unfinished multipart upload is kept", "R2 docs")
CDN_MAX_AGE_S = Deadline(300.0, "an object is cached by default", "contract E.7")
STORE_CHUNK = Limit(256 * KIB, "bytes", "one read or write of a blob", "ours")
STORE_GROUP = Limit(64, "transactions", "committed together, with one wait for the disk", "ours")
STORE_READS = Limit(2, "reads", "of one project at once, of the threads below", "ours")
STORE_WRITES = Limit(32, "transactions", "of one project in a group that is committed", "ours")
STORE_WAITING = Limit(500, "calls", "of one project wait to read, and to write; then 503", "ours")
STORE_THREADS = Limit(4, "threads", "blob and database reads at once", "ours")
STORE_BUSY_S = Deadline(5.0, "waiting for another process's database lock", "ours")
STORE_LOCK_S = Deadline(5.0, "waiting for the previous owner of a state folder", "architecture 7")
STORE_READ_TRIES = Limit(3, "tries", "to read an object that is being overwritten", "ours")
STORE_CHECK_BYTES = Limit(64 * MIB, "bytes", "of a database checked whole at its opening", "ours")
SLUG_TRIES = Limit(16, "tries", "to derive a slug that is free", "ours")
KEY_PREFIX_CHARS = Limit(4, "characters", "of an API key's random part shown again", "ours")

# --- the bundler, and the maps that lead back to the user's files ---
ESBUILD_START_S = Deadline(10.0, "esbuild from its start to its version", "ours; seen 6 ms")
ESBUILD_BUILD_S = Deadline(10.0, "one build", "ours; seen 1 to 120 ms")
ESBUILD_STOP_S = Deadline(2.0, "esbuild after its input is closed", "ours; seen 2 ms")
ESBUILD_PACKET = Limit(256 * MIB, "bytes", "one answer of esbuild", "ours")
ESBUILD_SAID = Limit(4 * KIB, "bytes", "what a dead esbuild said, kept for the message", "ours")
BUILD_MESSAGES = Limit(200, "messages", "errors (and, apart, warnings) kept per build", "ours")
BUILD_SOURCE_LINE = Limit(400, "characters", "a source line kept beside an error", "ours")
BUILD_OWN_IMPORTS = Limit(3, "imports", "named that lead to a package's fault", "ours")
SOURCE_MAP = Limit(32 * MIB, "bytes", "one source map", "contract D.2, the third part")
STACK = Limit(64 * KIB, "characters", "a stack that is mapped; the rest is cut", "ours")
STACK_LINES = Limit(200, "lines", "of one stack; the rest is cut", "ours")

# --- egress: what functions fetch ---
EGRESS_ANSWERS = Limit(256, "addresses", "one name resolves to, all of them checked", "ours")
EGRESS_CONNECT_TRIES = Limit(4, "addresses", "tried for one request", "ours")
EGRESS_HEAD_BYTES = Limit(128 * KIB, "bytes", "head of an external answer", "ours")
EGRESS_FIELD_OVERHEAD = Limit(32, "bytes", "each field counts besides its text", "RFC 9113 6.5.2")
EGRESS_INTERIM = Limit(10, "answers", "1xx before the real one", "reliability.md 5, 17")
EGRESS_PEERS = Limit(64, "addresses", "with kept connections, per function process", "ours")
EGRESS_RESOLVE_S = Deadline(5.0, "a name is resolved", "reliability.md 5, 15")
RESOLVE_THREADS = Limit(128, "look-ups", "of names under way on a server at once", "ours")
RESOLVE_AT_ONCE = Limit(8, "look-ups", "of names under way in one project at once", "ours")
RESOLVE_WAITING = Limit(64, "names", "of one project looked up or waiting for it", "ours")
RESOLVE_KEPT = Limit(256, "names", "of one project whose addresses are kept", "ours")
RESOLVE_KEPT_S = Deadline(5.0, "the addresses of a name are kept", "ours")
EGRESS_CONNECT_S = Deadline(5.0, "a connection and its TLS stand", "reliability.md 5, 18")
EGRESS_FIRST_BYTE_S = Deadline(60.0, "an external answer begins", "reliability.md 5, 18")
EGRESS_IDLE_S = Deadline(60.0, "between two chunks of an external answer", "reliability.md 5, 18")
EGRESS_DISCARD_BYTES = Limit(128 * MIB, "bytes", "of an upload dropped after its answer", "ours")
EGRESS_DISCARD_S = Deadline(2.0, "an upload is dropped after its answer", "ours")
EGRESS_CLOSE_S = Deadline(1.0, "a server takes what is left for it at the end", "ours")
EGRESS_APP_LEAVE_S = Deadline(0.25, "our app notices that a function stopped listening", "ours")

# --- the command line and the dev loop ---
OUTPUT_BYTES = Limit(16 * MIB, "bytes", "of output waiting for a slow reader", "ours")
WATCH_GONE_S = Deadline(0.2, "a file that an editor replaces may be missing", "ours")
WATCH_OPEN_S = Deadline(5.0, "a watch on some folders stands", "ours")
WATCH_LOOKS = Limit(20, "builds", "fail in a row on a file that may be half-saved", "ours")
WATCH_SLACK_S = Deadline(0.05, "a file's time may lag behind the clock", "ours; a tick is 4 ms")
DEV_STATES = Limit(4096, "folders", "looked at to find a running dev server", "ours")
INVOKE_IDLE_S = Deadline(300.0, "amba-run invoke waits for the next bytes", "ours")
INVOKE_HEADERS = Limit(10_000, "headers", "of an answer that amba-run invoke prints", "ours")
INVOKE_BODY_BYTES = Limit(4096 * MIB, "bytes", "sent by amba-run invoke", "ours")
DOCTOR_RUN_S = Deadline(10.0, "a program tells its version, or a name resolves", "ours")
INOTIFY_WATCHES = Limit(8192, "folders", "watched by all programs of a user, at least", "ours")
INOTIFY_INSTANCES = Limit(128, "watchers", "of all programs of a user, at least", "Linux default")
OPEN_FILES_LOW = Limit(1024, "files", "hard limit below which doctor warns", "ours")
ENGINE_OLD_DAYS = Limit(180, "days", "age of the engine at which doctor warns", "ours")
UNIX_PATH_BYTES = Limit(103, "bytes", "path of a Unix socket (macOS; Linux has 107)", "sys/un.h")

# --- engines that end, and sockets that close ---
RESTART_PATIENCE_S = Deadline(1.0, "a request waits for a rested restart; else 503", "ours")
DEATH_NEWS_S = Deadline(0.3, "between a broken connection and its engine's exit code", "ours")
CUT_BODY_S = Deadline(0.25, "a guest handles that its caller left in mid-upload", "ours")
WEBSOCKET_CLOSE_S = Deadline(1.0, "a guest answers a close frame", "ours")

# --- the front of the house: hosts and refusals ---
HOSTS_SEEN = Limit(512, "spellings", "of Host headers remembered as parsed", "ours")
EDGE_LINGER_S = Deadline(1.0, "a refused client may read its answer before the end", "ours")
EDGE_LINGER_BYTES = Limit(4 * MIB, "bytes", "of a refused client dropped unread", "ours")
EDGE_PIPELINED = Limit(128, "requests", "wait behind one; more end it", "row A6 asks for 100")
EDGE_HALF_CLOSED_S = Deadline(0.5, "an answer begins after its client ended its side", "ours")

# --- what a guest tells, bounded again on our side ---
LOG_DEPTH = Limit(64, "levels", "of nesting in one console line; else it is replaced", "ours")
LOG_EXCEPTIONS = Limit(16, "exceptions", "kept per invocation", "ours")

# --- what a killed process leaves ---
SWEPT_ENTRIES = Limit(16_384, "entries", "of the temporary folder seen by a sweep", "ours")

# --- client commands: what they send to a control plane, and wait for ---
API_ANSWER_BYTES = Limit(64 * MIB, "bytes", "one answer of a control plane", "ours")
API_ANSWER_S = Deadline(60.0, "a control plane answers", "ours")
API_PAGE = Limit(200, "rows", "asked for in one page of a list", "contract E.5 (CLI)")
API_ROWS = Limit(10_000, "rows", "of one list that a command prints", "ours")
TRIGGER_DATA_BYTES = Limit(8 * MIB, "bytes", "one --data of a message, before it is sent", "ours")
PAYLOAD_SHOWN_CHARS = Limit(200, "characters", "of a message that queues peek shows", "ours")
TRIGGERS_TOLD = Limit(20, "lines", "of schedules and queues that dev tells at once", "ours")
QUEUE_TALK_S = Deadline(1.0, "from a change of a queue until dev looks how deep it is", "ours")
LOGS_POLL_S = Deadline(1.0, "between two looks of functions logs --follow", "contract D.5: 3 s")
LOGS_PAGE = Limit(1000, "events", "of one answer with logs", "contract D.5")

# --- the hosted node: isolates that come and go, rate limits, logs ---
LIVE_ISOLATES = Limit(64, "isolates", "kept alive on a node; idle ones over it end", "ours")
LIVE_ISOLATES_HARD = Limit(256, "isolates", "alive on a node at all; then 503", "ours")
ISOLATE_IDLE_S = Deadline(600.0, "an isolate without a request is kept", "issue 3 item 5")
EVICT_EVERY_S = Deadline(5.0, "between looks for isolates that have been idle too long", "ours")
ISOLATE_STARTS = Limit(8, "isolates", "being started at once on a node; the rest wait", "ours")
RATE_LIMIT_BUCKETS = Limit(10_000, "callers", "counted at once per function", "ours")
LOG_STORE_EVENTS = Limit(10_000, "events", "kept per function", "ours")
LOG_STORE_FUNCTION_BYTES = Limit(4 * MIB, "bytes", "of events kept per function", "ours")
LOG_STORE_BYTES = Limit(32 * MIB, "bytes", "of events kept on a node", "ours")
LOG_STORE_LATE = Limit(256, "events", "looked at for the one a late line belongs to", "ours")

# --- the control plane: what a request to it may be ---
CONTROL_JSON_BYTES = Limit(1 * MIB, "bytes", "JSON body of one API request", "ours")
CONTROL_JSON_DEPTH = Limit(64, "levels", "of nesting in a JSON body", "ours")
CONTROL_UPLOAD_BYTES = Limit(64 * MIB, "bytes", "one upload, encoded and decoded", "contract D.3")
CONTROL_UPLOAD_RATIO = Limit(200, "to 1", "a gzip-encoded upload unpacks", "reliability.md 2.3")
CONTROL_UPLOAD_RATIO_FROM = Limit(1 * MIB, "bytes", "unpacked before the ratio counts", "ours")
CONTROL_UPLOADS_BYTES = Limit(256 * MIB, "bytes", "uploads in memory at once; then 503", "ours")
CONTROL_METADATA_BYTES = Limit(256 * KIB, "bytes", "the metadata part of an upload", "ours")
CONTROL_PARTS = Limit(32, "parts", "of one upload", "ours")
CONTROL_BODY_IDLE_S = Deadline(30.0, "between two pieces of an API request's body", "ours")
CONTROL_BODY_S = Deadline(300.0, "an API request's body in all", "ours")
CONTROL_SEGMENTS = Limit(16, "segments", "of an API path that is looked up", "ours")
DEPLOY_WAITERS = Limit(100, "deploys", "of one function that wait for their turn", "row D12")
SECRET_PUSH_WAIT_S = Deadline(0.5, "setting a secret waits for running isolates", "ours")
SECRET_PUSH_AGAIN_S = Deadline(0.2, "before a failed push is tried again, then doubled", "ours")
SECRET_PUSH_SLOWEST_S = Deadline(60.0, "between tries to tell running isolates", "ours")
LOG_SINCE_S = Deadline(3600.0, "logs go back where no since is given", "contract D.5")
LOG_EVENTS_DEFAULT = Limit(100, "events", "of one answer where no limit is given", "contract D.5")
API_KEYS = Limit(1000, "keys", "of one project", "ours")
PATS = Limit(100, "tokens", "of one developer", "ours")
CREDENTIALS_VALID = Limit(16, "credentials", "of one kind valid at once in a project", "ours")
SECRETS = Limit(512, "secrets", "of one project, all scopes", "ours")
LIST_ROWS = Limit(1000, "rows", "of one page of a list", "ours; the CLI asks for no page")
EVENTS_BATCH = Limit(500, "events", "tracked by one request; more is refused", "contract E.6")
EVENT_NAME = Limit(200, "characters", "of an event's name", "ours")
EVENT_ID = Limit(200, "characters", "of a caller's id of an event", "ours")
EVENT_PROPERTIES = Limit(32 * KIB, "bytes", "of an event's properties as JSON", "ours")
EVENTS_KEPT = Limit(100_000, "events", "of one project; then those that happened first go", "ours")
EVENTS_DEFAULT = Limit(100, "events", "of one page where no limit is given", "contract E.6")
EVENTS_PAGE = Limit(4 * MIB, "bytes", "of properties in one page; then it ends", "ours")
EVENTS_COUNTED = Limit(10_000, "projects", "whose events are counted in memory", "ours")
EVENTS_SINCE_S = Deadline(86_400.0, "events go back where no since is given", "contract E.6")
EVENTS_RANGE_S = Deadline(90 * 86_400.0, "in which events are counted, at most", "contract E.6")
AUDIT_EVENTS = Limit(100_000, "events", "of one project's audit; more are refused", "ours")
EMAILS_KEPT = Limit(1000, "mails", "of one project's outbox; then the oldest go", "ours")
EMAIL_SUBJECT = Limit(400, "characters", "of a mail's subject", "ours")
EMAIL_ADDRESS = Limit(254, "characters", "of a mail address", "RFC 5321 section 4.5.3.1")
EMAIL_BODY = Limit(256 * KIB, "bytes", "of a mail's html, text or data, each", "ours")
EMAIL_TEMPLATE = Limit(100, "characters", "of a template's name", "ours")
MEDIA_OBJECT = Limit(100 * MIB, "bytes", "one PUT of an object", "contract E.7")
MEDIA_ASSETS = Limit(100_000, "assets", "of one project", "ours")
MEDIA_PENDING = Limit(
    1000, "uploads", "of a user, or of a project itself, that are not done", "ours"
)
MEDIA_FILENAME = Limit(255, "characters", "of a file's name", "ours")
MEDIA_BUCKET = Limit(63, "characters", "of a bucket's name", "ours")
MEDIA_TYPE = Limit(255, "characters", "of a MIME type", "ours")
MEDIA_METADATA = Limit(8 * KIB, "bytes", "of an asset's metadata as JSON", "ours")
MEDIA_RETENTION = Limit(3650, "days", "an asset is kept, where it says", "ours")
MEDIA_PUT_S = Deadline(600.0, "a presigned PUT is good for", "contract E.7")
MEDIA_GET_S = Deadline(3600.0, "a presigned GET is good for", "contract E.7")
MEDIA_EXPIRY = Limit(86_400, "seconds", "a presigned URL is good for, at most", "contract E.7")
MEDIA_PENDING_S = Deadline(86_400.0, "an upload is kept after its URL's end, undone", "ours")
MEDIA_PURGE = Limit(200, "assets", "of one project purged in one go", "ours")
MEDIA_LOOK_S = Deadline(3600.0, "between looks at the clock for the daily purge", "ours")
CONFIGURE_S = Deadline(5.0, "an isolate takes new values of its bindings", "ours")
PENDING_S = Deadline(0.25, "an isolate says whether it still works; else it does", "ours")
PENDING_EVERY_S = Deadline(0.05, "between asking a drained isolate for unfinished work", "ours")
PENDING_SILENT = Limit(8, "times", "a drained isolate that does not answer is asked", "ours")
EVICT_LOOK = Limit(16, "isolates", "asked whether they still work, per eviction", "ours")

# --- remote config (contract E.8) ---
CONFIG_KEYS = Limit(1_000, "keys", "of a project's remote config", "ours")
CONFIG_KEY_CHARS = Limit(128, "characters", "of a config key", "ours")
CONFIG_VALUE_BYTES = Limit(64 * KIB, "bytes", "JSON of one config value", "ours; as a secret's")
CONFIG_DESCRIPTION_CHARS = Limit(2_000, "characters", "of a config key's description", "ours")
CONFIG_CONDITIONS = Limit(50, "conditions", "of one config key", "ours")
CONFIG_BYTES = Limit(
    4 * MIB, "bytes", "values, conditions and descriptions of a project's config", "ours"
)
CONFIG_AGE_S = Limit(300, "s", "a client keeps its config without asking", "contract E.8")
CONFIG_USER_AGE_S = Limit(60, "s", "a signed-in client keeps its config", "contract E.8")

# --- currencies (contract E.9) ---
CURRENCIES = Limit(100, "currencies", "of a project", "ours")
CURRENCY_CODE_CHARS = Limit(64, "characters", "of a currency's code", "ours")
CURRENCY_TEXT_CHARS = Limit(2_000, "characters", "of a description or a reason", "ours")
CURRENCY_REFERENCE_CHARS = Limit(200, "characters", "of a transaction's reference_id", "ours")
CURRENCY_AMOUNT = Limit(2**53 - 1, "units", "of a balance, an amount, a lifetime's sum", "JSON")
CURRENCY_RECHARGE_HOURS = Limit(24 * 366, "hours", "between automatic recharges", "ours")
CURRENCY_TRANSACTIONS = Limit(
    10_000, "transactions", "kept of one user in one currency, the newest", "ours"
)

# --- admission: what a bundle may be, and how long it is looked at ---
BUNDLE_GZIP = Limit(8 * MIB, "bytes", "a bundle at gzip level 9; more is refused", "contract D.1")
BUNDLE_GZIP_WARN = Limit(8_000_000, "bytes", "at gzip level 9, from which it is warned", "S1: 8 MB")
BUNDLE_BYTES = Limit(64 * MIB, "bytes", "a bundle as it is; over it none is packed", "contract D.3")
SCAN_S = Deadline(10.0, "a bundle is parsed, or refused for it", "ours; seen 0.05 s per MB")
SCAN_MEMORY = Limit(3072 * MIB, "bytes", "address space of a parser of strangers' bytes", "ours")
SCAN_STDIN = Limit(1 * MIB, "bytes", "a bundle that is sent, not written to a file", "ours; faster")
SCAN_DEPTH = Limit(64, "folders", "above a bundle that is scanned, at least", "ours")
SCAN_DEPTH_FILE = Limit(1500, "folders", "above one in a file; deeper ones are sent", "PATH_MAX")
SCAN_FINDINGS = Limit(200, "imports", "left in a bundle that are told; more end the scan", "ours")
VIOLATION_TEXT = Limit(2048, "characters", "a guest's or a map's words in a violation", "ours")
VIOLATION_CHAIN = Limit(32, "files", "of an import chain that are told", "ours")
START_POLL_S = Deadline(0.02, "between looks at the CPU time of a start", "ours")
START_CPU_WARN_MS = Limit(
    400, "ms", "CPU of a start, from which it is warned", "reliability.md 2.3"
)
CHECKS_AT_ONCE = Limit(4, "functions", "built, scanned and started at once by check", "ours")
CHECK_FUNCTIONS = Limit(4096, "functions", "of one amba-run check", "ours")
REPORT_BYTES = Limit(64 * MIB, "bytes", "a report given with --against", "ours")
MAPS_KEPT = Limit(2, "bundles", "whose maps were wanted lately, kept for the next stack", "ours")
UNTOLD_PATS = Limit(8, "tokens", "minted for a state directory before one was shown", "ours")

# --- the turnstile: who waits while a function, a project or the node is full ---
DEV_CONCURRENCY = Limit(200, "invocations", "of a dev server at once", "reliability.md 2.3")
NODE_CONCURRENCY = Limit(1_000, "invocations", "of a node at once", "reliability.md 2.3")
PROJECT_CONCURRENCY = Limit(500, "invocations", "of one project at once, on a node", "ours")
PROJECT_WAITING = Limit(100, "requests", "of one project wait for their turn", "reliability.md 2.3")
NODE_WAITING = Limit(1_000, "requests", "of all projects wait for their turn", "ours")
TURN_WAIT_S = Deadline(5.0, "a request waits for its turn; then 429 or 503", "reliability.md 2.3")
VAIN_WAITING = Limit(8, "requests", "of a version wait for their own callers", "ours; row E29")
VAIN_WAIT_S = Deadline(0.25, "the same, where its own callers hold all places", "ours; row E29")
RETRY_AFTER_MAX_S = Deadline(30.0, "that a refused request is asked to wait", "ours")

# --- control groups and the escape probe ---
CGROUP_PIDS = Limit(64, "threads", "of one function's processes", "reliability.md 2.3")
CGROUP_CPU_SHARES = Limit(512, "of 1024", "share of CPU of all functions beside ours, v1", "ours")
CGROUP_CPU_WEIGHT = Limit(50, "of 100", "share of CPU of all functions beside ours, v2", "ours")
PROBE_S = Deadline(10.0, "the escape probe runs in the place of an engine", "ours")
PROBE_MEMORY = Limit(64 * MIB, "bytes", "of the escape probe", "ours")
ATTACK_FETCH_S = Deadline(5.0, "one request of `doctor --attack` to a denied address", "ours")
ATTACK_S = Deadline(60.0, "all requests of `doctor --attack` to denied addresses", "ours")
PROBE_BYTES = Limit(64 * KIB, "bytes", "that the escape probe may say", "ours")

# --- the watchdog: what an isolate does while work is in flight ---
WATCH_EVERY_S = Deadline(0.025, "between looks at an isolate at work", "reliability.md 4.3, 10")
WATCH_MEMORY_S = Deadline(0.010, "between looks while its memory grows", "reliability.md B3")
WATCH_CAP_S = Deadline(0.002, "between looks while its memory may pass its cap", "ours")
WATCH_REST_S = Deadline(0.1, "between looks at one whose work outlives its answers", "ours")
WATCH_REST_ASK_S = Deadline(2.0, "between asking one at rest for unfinished work", "ours")
PING_EVERY_S = Deadline(0.25, "between signs of life of an isolate at work", "row E31")
PING_CPU_MS = Limit(2, "ms", "of CPU without an answer, after which one is asked for life", "ours")
STALL_S = Deadline(2.0, "without a sign of life while its CPU stands still", "row E31")
STALL_CPU_SHARE = Limit(10, "%", "of a CPU, below which an isolate stands still", "ours")
CPU_DOUBT_MS = Limit(2_000, "ms", "CPU that may be another's, before it ends anybody", "ours")
SOCKET_CPU_SHARE = Limit(50, "%", "of a CPU, below which the bill of a WebSocket ends", "ours")
MEMORY_RATE = Limit(64 * MIB, "bytes/s", "growth that asks for closer looks", "ours")
MEMORY_ROOM = Limit(64 * MIB, "bytes", "below the cap, that ask for closer looks", "ours")
TRACES_KEPT = Limit(1_024, "invocations", "ended, whose place in a trace is known", "row E29")
TRACE_DEPTHS_KEPT = Limit(131_072, "places", "for the depths of those forgotten", "row E29")
HOP_KEPT_S = Deadline(60.0, "requests that nobody can be named for continue a trace", "row E29")
TRACE_CALLS = Limit(1_000, "invocations", "because of one request from outside", "row E29")
RESPONSE_HEADERS = Limit(200, "headers", "of one answer", "reliability.md 2.3")
WARN_AT = Limit(80, "%", "of a limit, from which it is warned", "issue 4 item 2")
WARN_EVERY_S = Deadline(60.0, "between warnings of one limit of one function", "ours")
BREACH_LINE_S = Deadline(1.0, "between lines for people about one limit of one function", "ours")
BREACHES_TOLD = Limit(4_096, "limits", "of functions remembered as warned of", "ours")

# --- the edge: how long and how many clients may keep us waiting ---
EDGE_HEAD_S = Deadline(10.0, "a request's head arrives, from its first byte", "row A7")
EDGE_SLICE = Limit(16 * KIB, "bytes", "chunk extensions or trailers on end", "row A8")
EDGE_BODY_IDLE_S = Deadline(30.0, "between two pieces of a request's body", "row A7")
EDGE_BODY_S = Deadline(60.0, "a request's body, beside a second per EDGE_RATE bytes", "ours")
EDGE_WRITE_IDLE_S = Deadline(60.0, "a client takes nothing of its answer", "row A7")
EDGE_UNSENT = Limit(256 * KIB, "bytes", "of an answer that the kernel holds unsent", "row A7")
WIRE_READ = Limit(20 * KIB, "bytes", "read at once from an engine", "row A7: slow readers")
EDGE_RATE = Limit(500, "bytes/s", "a client sends or takes at least, over its time", "ours")
EDGE_CONNECTIONS = Limit(10_000, "connections", "of clients per listener; then 503", "row K3")
EDGE_CONNECTIONS_LEAST = Limit(16, "connections", "taken, however few files we may open", "ours")
EDGE_FILES = Limit(96, "files", "we open beside clients' connections and engines'", "row K4")
EDGE_SQUEEZED_S = Deadline(1.0, "idle connections are kept where there are too many", "ours")
EDGE_SQUEEZED = Limit(64, "connections", "looked at for an idle one, per new one", "ours")
NODE_WEBSOCKETS = Limit(500, "WebSockets", "of a node at once", "ours: half its invocations")
PROJECT_WEBSOCKETS = Limit(250, "WebSockets", "of one project at once, on a node", "ours")
WEBSOCKET_ROOM = Limit(256 * MIB, "bytes", "of messages of all WebSockets in our memory", "ours")
WEBSOCKET_PROJECT_ROOM = Limit(
    96 * MIB,
    "bytes",
    "of messages of one project's WebSockets, on a node",
    "ours: 3 of the largest",
)
WEBSOCKET_FREE = Limit(64 * KIB, "bytes", "each way through a WebSocket that do not count", "ours")
WEBSOCKET_FRAME_COST = Limit(256, "bytes", "a message counts beside its own", "measured")
WEBSOCKET_PING_S = Deadline(20.0, "between two pings to a WebSocket's client", "ours")
WEBSOCKET_PONG_S = Deadline(20.0, "the client answers a ping", "ours")
WEBSOCKET_IDLE_S = Deadline(600.0, "a WebSocket without a message either way", "ours")
WEBSOCKET_FRAGMENTS = Limit(65_536, "frames", "of one message", "ours")

# --- subrequests, allowlists and secrets outside of isolates ---
WIRE_CONNECTIONS = Limit(640, "connections", "of an engine to one of our sockets", "rows E17-19")
WIRE_ALL_CONNECTIONS = Limit(4_096, "connections", "of all engines to our sockets", "rows E19, K4")
WIRE_LEAST = Limit(6, "connections", "to one socket, whatever else its project holds", "row E19")
WIRE_BEGUN = Limit(2, "requests", "of engines begun in one pass of the event loop", "rows E18, E29")
WIRE_SHARE = Limit(25, "%", "of our files, for engines' connections and what they ask", "row K4")
SERVICE_CALLS = Limit(32, "calls", "of an engine to STORAGE and caches at once", "row E17")
CALLERS_KEPT = Limit(1_024, "invocations", "of a version whose subrequests are counted", "row E17")
CALLERS_TIDIED = Limit(4, "accounts", "looked at, for each new one, whether they may go", "ours")
CALLERS_KNOWN = Limit(8_192, "places", "for names of invocations that ended", "rows E17, E29")
EGRESS_RULES = Limit(64, "hosts", "in one allowlist of a function", "ours")
EGRESS_SECRETS = Limit(100, "secrets", "of a function that stay outside of it", "as many as it has")
EGRESS_SECRET_BYTES = Limit(4 * KIB, "bytes", "of a secret that egress puts in a header", "ours")
OWN_ADDRESSES_S = Deadline(5.0, "this machine's addresses are taken as known", "ours")
DENIALS = Limit(50, "lines", "on refused requests of one function, per DENIALS_EVERY_S", "T6")
DENIALS_EVERY_S = Deadline(10.0, "in which so many refused requests are logged", "row E26")
EGRESS_KEPT = Limit(64, "connections", "to external hosts kept idle, per function process", "ours")

# --- collections (contract E.5) ---
COLLECTIONS = Limit(200, "collections", "of one project", "ours; the CLI lists 200")
COLLECTION_NAME = Limit(
    50, "characters", "a collection's, column's or index's name", "contract E.5"
)
COLLECTION_COLUMNS = Limit(200, "columns", "of one collection, besides the managed", "ours")
COLLECTION_INDEXES = Limit(32, "indexes", "of one collection", "ours")
COLLECTION_INDEX_COLUMNS = Limit(16, "columns", "of one index", "ours")
COLLECTION_VECTOR = Limit(4096, "numbers", "of a vector", "contract E.5")
COLLECTION_TEXT_BYTES = Limit(256 * KIB, "bytes", "one text of a row", "ours")
COLLECTION_ROW_BYTES = Limit(512 * KIB, "bytes", "one row, as it is kept", "ours")
COLLECTION_USER_ID = Limit(256, "characters", "of a user id in a row", "ours")
COLLECTION_BATCH = Limit(500, "rows", "of one rows:batch", "contract E.5")
COLLECTION_BATCH_BYTES = Limit(16 * MIB, "bytes", "JSON body of one rows:batch", "ours")
COLLECTION_BULK = Limit(10_000, "rows", "one bulk update or delete may ask for", "contract E.5")
COLLECTION_BULK_USUAL = Limit(1_000, "rows", "a bulk call reaches, unasked", "contract E.5")
COLLECTION_ANSWER_BYTES = Limit(64 * MIB, "bytes", "of rows in one answer of a bulk call", "ours")
COLLECTION_ALTER_ROWS = Limit(
    200_000,
    "rows",
    "of a collection that gets an index or loses a column",
    "ours; 0.3 s for numbers, some seconds for texts of 1 KiB",
)
COLLECTION_DROP_ROWS = Limit(50_000, "rows", "of a collection that is dropped whole", "ours; 0.5 s")
COLLECTION_DROP_BATCH = Limit(5_000, "rows", "deleted at once of a larger one", "ours; 0.2 s")
COLLECTION_DROP_TURNS = Limit(1_000_000, "times", "that many rows are deleted", "ours")
COLLECTION_TABLES = Limit(512, "tables", "of collections kept in memory", "ours")
COLLECTION_PAGE = Limit(1_000, "rows", "of one page; more are not given", "contract E.5")
COLLECTION_PAGE_USUAL = Limit(50, "rows", "of a page where no limit is given", "contract E.5")
COLLECTION_PAGE_BYTES = Limit(16 * MIB, "bytes", "of rows, after which a page ends early", "ours")
COLLECTION_FILTER_DEPTH = Limit(32, "levels", "of and, or, not in one filter", "ours")
COLLECTION_FILTER_LEAVES = Limit(200, "comparisons", "in one filter", "ours")
COLLECTION_FILTER_IN = Limit(1_000, "values", "of one list in a filter", "ours")
COLLECTION_FILTER_VALUES = Limit(5_000, "values", "of all lists in one filter", "ours")
COLLECTION_QUERY_STEPS = Limit(
    300_000_000,
    "steps",
    "of SQLite and ours that one query of rows may cost",
    "ours; a few seconds",
)
COLLECTION_PATTERN = Limit(1_000, "characters", "of a like or ilike pattern", "ours")
COLLECTION_ORDER = Limit(8, "columns", "to order by", "ours")
COLLECTION_CURSOR_TEXT = Limit(2_000, "bytes", "of a text that a cursor may carry", "ours")
COLLECTION_CURSOR = Limit(16 * KIB, "bytes", "of a cursor that is read", "ours")
COLLECTION_NEAREST = Limit(100, "rows", "of one find-nearest; more are not given", "contract E.5")
COLLECTION_NEAREST_USUAL = Limit(10, "rows", "of a find-nearest that says no k", "contract E.5")
COLLECTION_NEAREST_SCAN = Limit(100_000, "rows", "one find-nearest compares", "ours")
COLLECTION_NEAREST_TEXT = Limit(32 * KIB, "bytes", "of a to_text", "ours")
COLLECTION_NEAREST_CHUNK = Limit(256, "rows", "compared at once", "ours; 4 MiB of 4,096 numbers")

# --- EDGE_DB_PROXY: SQL of functions ---
EDGE_DB_BODY = Limit(1 * MIB, "bytes", "of one call, its SQL and its parameters", "as of the API")
EDGE_DB_SQL = Limit(32 * KIB, "characters", "of one statement", "ours; 30 ms to read")
EDGE_DB_DEPTH = Limit(32, "levels", "of brackets, NOT and SELECT in one statement", "ours")
EDGE_DB_CONDITIONS = Limit(200, "comparisons", "in one statement; columns in one list", "ours")
EDGE_DB_PARAMS = Limit(5_000, "parameters", "of one statement", "ours")
EDGE_DB_VALUES = Limit(5_000, "values", "compared with, of all lists in one statement", "ours")
EDGE_DB_ROWS = Limit(10_000, "rows", "answered or changed by one statement", "FN: its own most")
EDGE_DB_ANSWER = Limit(16 * MIB, "bytes", "of rows in one answer", "ours")
EDGE_DB_S = Deadline(2.0, "one statement looks for its rows", "ours")
EDGE_DB_WRITE_S = Deadline(2.0, "it looks at them once more, and changes them", "ours")
EDGE_DB_STEPS = Limit(10_000, "steps", "of SQLite between looks at the clock, by patterns", "ours")
EDGE_DB_KEPT = Limit(512, "statements", "whose reading is kept", "ours")
EDGE_DB_KEPT_SQL = Limit(2 * KIB, "characters", "of a statement whose reading is kept", "ours")
EDGE_DB_PROJECT = Limit(2, "statements", "of one project that look for rows at once", "ours")
EDGE_DB_NODE = Limit(3, "statements", "of a node that look for rows at once", "one thread is left")

# --- the jail ---
SANDBOX_TRIAL_S = Deadline(5.0, "a program says its version within walls that are tried", "ours")
SANDBOX_TRIALS = Limit(3, "trials", "of walls around a program that ends too soon", "ours")
SANDBOX_LOOK_S = Deadline(0.001, "between looks at walls that are being raised", "ours")
SANDBOX_LOOK_MOST_S = Deadline(0.008, "between looks at walls that are slow to stand", "ours")
SANDBOX_WORDS = Limit(4 * KIB, "bytes", "of what a trial said that are read", "ours")
SANDBOX_FILES = Limit(4_096, "files", "and sockets that an engine may have open", "row E19")
SANDBOX_PROCESSES = Limit(128, "threads", "of an engine's own user, where it has one", "row E20")
ELF_SEGMENTS = Limit(128, "segments", "of a program that are looked at for its loader", "ours")

# --- web pages that call a dev server ---
REFUSED_PAGES_TOLD = Limit(64, "origins", "of refused pages that are told of, once each", "ours")
FOREIGN_HOSTS_TOLD = Limit(8, "hosts", "that are not ours, of which a log line tells", "ours")

# --- traps in a project's folder (row C9) ---
SOURCE_FILE = Limit(64 * MIB, "bytes", "one file that goes into a bundle", "as BUNDLE_BYTES")
BUILD_MEMORY = Limit(4096 * MIB, "bytes", "address space of a bundler of one's own files", "ours")

# --- end users and segments ---
APP_USERS = Limit(1_000_000, "users", "of one project; then 429 MAU_CAP_REACHED", "ours")
USERS_PAGE = Limit(50, "users", "of one page where no limit is given", "contract E.4")
USER_EVENTS_PAGE = Limit(100, "events", "of one user where no limit is given", "contract E.6")
USER_PROPERTIES_BYTES = Limit(16 * KIB, "bytes", "of a user's properties, as JSON", "ours")
USER_SEARCH = Limit(200, "characters", "that a list of users is searched for", "ours")
USERS_KNOWN = Limit(65_536, "users", "remembered as being there, of all projects", "ours")
EMAIL_LENGTH = Limit(254, "characters", "of an email address", "RFC 5321 4.5.3.1.3")
PASSWORD_LEAST = Limit(8, "characters", "of a password; fewer are weak", "contract E.1")
PASSWORD_LENGTH = Limit(1024, "characters", "of a password", "ours")
PASSWORD_ROUNDS = Limit(10, "doublings", "of the work on a password (bcrypt's cost)", "ours")
PASSWORD_THREADS = Limit(2, "passwords", "worked on at once", "ours")
PASSWORDS_WAITING = Limit(128, "passwords", "of all projects wait for that; then 503", "ours")
PASSWORDS_OF_PROJECT = Limit(32, "passwords", "of one project worked on or waiting", "ours")
REFRESH_TOKENS = Limit(1000, "tokens", "to refresh sessions kept per user, used ones too", "ours")
PUSH_TOKENS = Limit(100, "tokens", "for push messages kept per user; the oldest goes", "ours")
SEGMENTS = Limit(200, "segments", "of one project, besides the system's", "ours")
SEGMENT_DEPTH = Limit(5, "groups", "within each other in a segment's rules", "contract E.13")
SEGMENT_RULES_BYTES = Limit(64 * KIB, "bytes", "of a segment's rules, as JSON", "ours")
SEGMENT_CONDITIONS = Limit(100, "conditions", "of one segment", "ours")
SEGMENT_BATCH = Limit(1000, "users", "evaluated in one transaction", "ours")
SEGMENTS_EVERY_S = Deadline(900.0, "between evaluations of all segments", "contract E.13")
# --- schedules and queues ---
_CF_QUEUES = "reliability.md 2.3; Cloudflare Queues"
EVENT_MS = Limit(900_000, "ms", "one delivery to `scheduled` or `queue`, at most", _CF_QUEUES)
QUEUE_NAME = Limit(64, "characters", "of a queue's name", "ours")
QUEUE_PAYLOAD_BYTES = Limit(128 * KIB, "bytes", "JSON of one message", "contract H-14")
QUEUE_DELAY_S = Limit(
    43_200, "s", "a message may be put off, by a send or a retry", "contract H-14"
)
QUEUE_KEY = Limit(256, "characters", "of an idempotency key", "ours")
QUEUE_KEY_S = Deadline(86_400.0, "an idempotency key is known", "contract D.7")
QUEUE_DEPTH = Limit(1_000_000, "messages", "of one queue, dead ones too; then 429", "ours")
QUEUE_BINDINGS = Limit(1_000, "bindings", "of one project", "ours")
QUEUE_BATCH = Limit(10, "messages", "of one delivery", "contract H-14")
QUEUE_BATCH_WAIT_MS = Limit(60_000, "ms", "a batch may wait until it is full", _CF_QUEUES)
QUEUE_CONSUMERS = Limit(10, "deliveries", "of one queue at once, at most", "ours")
QUEUE_CONSUMERS_USUAL = Limit(4, "deliveries", "of one queue at once, unasked", "ours")
QUEUE_RETRIES = Limit(100, "retries", "of one message, at most", _CF_QUEUES)
QUEUE_RETRIES_USUAL = Limit(3, "retries", "of one message, unasked", "contract H-14")
QUEUE_BACKOFF_MS = Limit(10_000, "ms", "before the first retry, doubled each time", "contract H-14")
QUEUE_BACKOFF_MOST_MS = Limit(3_600_000, "ms", "before a retry, at most", "ours")
QUEUE_JITTER = Limit(20, "%", "that a back-off is longer or shorter", "ours")
QUEUE_LEASE_MS = Limit(60_000, "ms", "of a lease beside the handler's time", "ours; 2.3 has 30 s")
QUEUE_CUT_OFF = Limit(20, "deliveries", "of a message may end without an outcome", "ours")
QUEUE_KEPT_S = Deadline(1_209_600.0, "a message waits, and a dead letter is kept", _CF_QUEUES)
QUEUE_ERROR = Limit(2_000, "characters", "of a message's last error", "ours")
QUEUE_DELIVERIES = Limit(64, "deliveries", "of queues of a node at once", "ours")
QUEUE_NAMED = Limit(1_000, "messages", "one call may name", "ours")
QUEUE_MOVED = Limit(5_000, "messages", "moved or dropped in one transaction", "ours; 50 ms")
QUEUE_FAIL_NEXT = Limit(1_000, "deliveries", "that may be made to fail", "ours")
QUEUE_NOW_BYTES = Limit(2 * MIB, "bytes", "JSON body of one delivery on demand", "ours")
QUEUE_PAGE_BYTES = Limit(4 * MIB, "bytes", "of messages in one page; then it ends", "ours")
QUEUES_KNOWN = Limit(10_000, "queues", "without messages remembered", "ours")
QUEUE_LOOK_S = Deadline(60.0, "between looks at the wall clock, which may jump", "ours")
QUEUE_AGAIN_S = Deadline(0.05, "before a delivery for which there was no place, at least", "ours")
QUEUE_TROUBLE_S = Deadline(5.0, "before a queue is tried again that the store failed", "ours")
QUEUE_RESUMES = Limit(17_280, "tries", "to end a resume that a crash cut off: a day", "ours")
QUEUE_SETTLE_TRIES = Limit(5, "tries", "to write down what became of a delivery", "ours")
QUEUE_SETTLE_S = Deadline(2.0, "a server that ends writes down what became of one", "ours")
QUEUE_SWEEP_S = Deadline(3_600.0, "between sweeps of dead letters and keys", "ours")
QUEUE_CLOSE_S = Deadline(5.0, "deliveries under way may end when a server does", "ours")
QUEUE_SERIES = Limit(200, "queues", "told apart in metrics, the deepest", "ours")
QUEUE_COUNT_S = Deadline(10.0, "the depth of queues is as old in metrics", "ours")
SCHEDULES_OF_FUNCTION = Limit(100, "schedules", "of one function", "ours")
SCHEDULES_OF_PROJECT = Limit(10_000, "schedules", "of one project", "ours; issue 6")
SCHEDULE_CRON = Limit(256, "characters", "of a cron expression", "ours")
SCHEDULE_DAYS = Limit(18_300, "days", "looked at for the next run: 50 years", "ours; as cronsim")
SCHEDULE_NEXT_RUNS = Limit(5, "runs", "to come that a list shows of each schedule", "issue 6")
SCHEDULE_LAST_RUNS = Limit(10, "runs", "that a list shows of each schedule", "ours")
SCHEDULE_SLOTS = Limit(50, "slots", "of history kept per schedule", "ours")
SCHEDULE_ERROR = Limit(1_024, "characters", "of a run's error kept in its history", "ours")
SCHEDULE_LATE_MS = Limit(60_000, "ms", "a slot may be late before it is missed", "ours")
SCHEDULE_RETRIES = Limit(2, "tries", "again, of a firing that did not reach its handler", "ours")
SCHEDULE_RETRY_S = Deadline(10.0, "to the first of them; twice that to the second", "ours")
SCHEDULE_END_S = Deadline(2.0, "a server that ends writes down how a run has ended", "ours")
SCHEDULE_STALE_MS = Limit(
    1_080_000, "ms", "after which a run that has no end is cut off", "EVENT_MS, tries, a margin"
)
SCHEDULE_AHEAD_MS = Limit(
    86_400_000, "ms", "ahead of the clock, which a slot's row may lie after a jump", "ours"
)
SCHEDULES_AT_ONCE = Limit(256, "firings", "of a node at once; the others wait", "ours")
SCHEDULE_BATCH = Limit(50, "schedules", "looked at in one go, before others have a turn", "ours")
SCHEDULE_LOOK_S = Deadline(30.0, "a jump of the wall clock is noticed", "half of being late")
SCHEDULE_JUMP_S = Deadline(2.0, "that the wall clock goes back at once are a jump", "ours")
SCHEDULE_REFRESH_S = Deadline(30.0, "a schedule that another process changed is seen", "ours")
# --- fan-out (contract E.13) ---
FAN_OUT_BATCH = Limit(100, "users", "in one message of a fan-out", "ours")
FAN_OUT_USERS = Limit(100_000, "users", "of the segment of one fan-out", "ours")
FAN_OUT_PAYLOAD_BYTES = Limit(64 * KIB, "bytes", "payload of a fan-out, as sent", "ours")
FAN_OUT_BYTES = Limit(32 * MIB, "bytes", "of all messages of one fan-out", "ours")
# --- snapshots of a state directory ---
SNAPSHOT_FILES = Limit(4_000_000, "files", "in a snapshot that is restored", "ours")
SNAPSHOT_BYTES = Limit(1024 * KIB * MIB, "bytes", "of a snapshot that is restored", "ours: 1 TiB")
SNAPSHOT_MANIFEST_BYTES = Limit(64 * KIB, "bytes", "what a snapshot says of itself", "ours")

# --- seeds of a dev server ---
SEED_FILE_BYTES = Limit(32 * MIB, "bytes", "one file with seeds", "ours")
SEED_ROWS = Limit(100_000, "rows", "of one file with seeds", "ours")
SEED_COLLECTIONS = Limit(200, "collections", "of one folder with seeds", "ours")
SEED_BATCH_ROWS = Limit(500, "rows", "of seeds sent at once", "contract E.5 (rows:batch)")
SEED_BATCH_BYTES = Limit(512 * KIB, "bytes", "of seeds sent at once; one row may be more", "ours")

# --- AI: what a gateway call, a prompt and its variables may be ---
AI_BODY_BYTES = Limit(8 * MIB, "bytes", "one call of the AI gateway", "ours")
AI_REPLY_BYTES = Limit(16 * MIB, "bytes", "a provider's reply that is not streamed", "ours")
AI_MESSAGES = Limit(10_000, "messages", "of one call of the AI gateway", "ours")
AI_STOPS = Limit(64, "texts", "that end a canned reply", "ours")
AI_ECHO_CHARS = Limit(1_000, "characters", "of a question that a canned reply repeats", "ours")
AI_PROMPTS = Limit(500, "prompts", "of one project", "ours")
AI_PROMPTS_PAGE = Limit(4 * MIB, "bytes", "of prompts' texts in one page; then it ends", "ours")
AI_TEMPLATE_CHARS = Limit(65_536, "characters", "of a prompt's template or system text", "ours")
AI_VARIABLES = Limit(256, "variables", "given to one prompt", "ours")
AI_RENDERED_BYTES = Limit(1 * MIB, "bytes", "a prompt with its variables filled in", "ours")
AI_KEY_CHARS_MIN = Limit(10, "characters", "of a provider's API key, at least", "contract E.10")
AI_KEY_CHARS = Limit(512, "characters", "of a provider's API key", "ours")
AI_FIXTURE_BYTES = Limit(1 * MIB, "bytes", "one recorded reply", "ours")
AI_EMBED_TEXTS = Limit(256, "texts", "embedded in one call", "ours")
AI_EMBED_BYTES = Limit(256 * KIB, "bytes", "of text embedded in one call", "ours")
AI_DIMENSIONS = Limit(4_096, "dimensions", "of an embedding", "contract E.5 (vector columns)")
AI_FIRST_BYTE_S = Deadline(600.0, "a provider begins its reply", "ours")
AI_IDLE_S = Deadline(120.0, "between two pieces of a provider's reply", "ours")
