// Runs before the guest's module: takes what the shim needs from the realm while it is still
// whole, and puts collecting functions in the place of console and addEventListener.
// The guest shares this realm afterwards, so what is collected is untrusted text for the host.

import { AsyncLocalStorage } from "node:async_hooks";
import { env as bindings, exports as loopback } from "cloudflare:workers";

const { apply, construct } = Reflect;
const { stringify } = JSON;
const { isArray } = Array;
const now = Date.now;
const String_ = String;
const Error_ = Error;
const Promise_ = Promise;
const Map_ = Map;
const WeakMap_ = WeakMap;
const slice = String.prototype.slice;
const codeAt = Function.prototype.call.bind(String.prototype.charCodeAt);
const toText = Function.prototype.call.bind(Number.prototype.toString);
const hasInstance = Function.prototype[Symbol.hasInstance];
const later = setTimeout;
const { keys: ObjectKeys, getPrototypeOf, setPrototypeOf } = Object;

// `instanceof`, whatever a guest has made of it.
function isA(value, type) {
  try {
    return apply(hasInstance, type, [value]);
  } catch {
    return false; // a Proxy that minds
  }
}
// An array that inherits nothing: no `toJSON` that a guest gave to all objects.
const bare = (array) => setPrototypeOf(array, null);

const current = new AsyncLocalStorage();
const run = AsyncLocalStorage.prototype.run.bind(current);
const store = AsyncLocalStorage.prototype.getStore.bind(current);

// A bundle that never names the console runs without that store (shim.mjs): what it tells all
// the same, by a detour or by a rejected `waitUntil`, belongs to the invocation begun last.
let latest;
function begun(invocation) {
  latest = invocation;
  return invocation;
}

// What a fetch is counted for that comes without a context: see `invocationNow`.
let newest;

const [SUBREQUESTS, AT_ONCE, LOG_KIB] = JSON.parse(bindings.__AMBA_LIMITS);
const TOTAL_MAX = LOG_KIB * 1024;
const UNANSWERED_MS = 100;
const LINE_MAX = TOTAL_MAX < 16384 ? TOTAL_MAX : 16384;

// One invocation's collected text: `lines` is JSON rows joined by commas. And its subrequests:
// how many so far, how many wait for their answers, the line of those whose turn has not come.
class Invocation {
  // fields, not assignments: a setter on Object.prototype must not see them
  request;
  ctx;
  log;
  lines = "";
  errors = "";
  size = 0;
  full = false;
  answered = false;
  flushing = false;
  watched = 0; // when its timer was set
  id = null;
  fetches = 0;
  open = 0;
  first = null;
  last = null;
  over = false;
  constructor(request, ctx, log) {
    this.request = request;
    this.ctx = ctx;
    this.log = log;
    if (ctx !== null) newest = this;
  }
}

const startup = new Invocation(null, null, null);

function ascii(json) {
  let out = "";
  let from = 0;
  for (let at = 0; at < json.length; at++) {
    const code = codeAt(json, at);
    if (code < 127) continue;
    out += apply(slice, json, [from, at]) + "\\u" + apply(slice, "000" + toText(code, 16), [-4]);
    from = at + 1;
  }
  return from === 0 ? json : out + apply(slice, json, [from]);
}

function printable(value, depth) {
  switch (typeof value) {
    case "string":
      return value.length > LINE_MAX ? apply(slice, value, [0, LINE_MAX]) + "…" : value;
    case "number":
      return value === value && value !== Infinity && value !== -Infinity ? value : String_(value);
    case "boolean":
      return value;
    case "object":
      break;
    case "function":
      return "[Function" + (value.name ? ": " + String_(value.name) : "") + "]";
    default:
      return String_(value);
  }
  if (value === null) return null;
  if (isA(value, Error_)) {
    const stack = value.stack;
    return typeof stack === "string" && stack ? stack : String_(value);
  }
  return depth > 0 ? plain(value) : String_(value);
}

// Objects become JSON values; what JSON cannot say (cycles, BigInt, Map) is named instead.
function plain(value) {
  const path = [];
  let budget = 2000;
  const walk = (v) => {
    if (typeof v !== "object" || v === null || isA(v, Error_)) return printable(v, 0);
    if (--budget < 0) return "…";
    for (let i = 0; i < path.length; i++) if (path[i] === v) return "[Circular]";
    if (path.length > 8) return isArray(v) ? "[Array]" : "[Object]";
    path[path.length] = v;
    let out;
    if (typeof v.toJSON === "function") {
      out = walk(v.toJSON());
    } else if (isArray(v)) {
      out = bare([]);
      for (let i = 0; i < v.length && i < 200; i++) out[i] = walk(v[i]);
    } else if (isA(v, Map_)) {
      out = { __proto__: null, "[Map]": walk([...v]) };
    } else if (v instanceof Set) {
      out = { __proto__: null, "[Set]": walk([...v]) };
    } else {
      out = { __proto__: null };
      const keys = ObjectKeys(v);
      for (let i = 0; i < keys.length && i < 200; i++) out[keys[i]] = walk(v[keys[i]]);
    }
    path.length--;
    return out;
  };
  return walk(value);
}

let breached = null; // tells the host of a limit that was passed

function add(invocation, kind, json) {
  if (invocation.full) return;
  if (invocation.size + json.length > TOTAL_MAX) {
    invocation.full = true;
    if (breached !== null) breached(invocation, "log_kib", LOG_KIB + 1, LOG_KIB);
    json = `["warn",${now()},["[amba-run] further console lines were dropped: ${LOG_KIB} KiB per invocation"]]`;
    kind = "lines";
  }
  invocation.size += json.length;
  invocation[kind] = invocation[kind] === "" ? json : invocation[kind] + "," + json;
  if (invocation.answered) flushSoon(invocation);
  else watch(invocation);
}

function collect(level, args) {
  const invocation = store() ?? latest ?? startup;
  if (invocation.full) return; // a flood of lines that nobody keeps costs next to nothing
  try {
    const out = bare([]);
    for (let i = 0; i < args.length && i < 100; i++) {
      try {
        out[i] = printable(args[i], 1);
      } catch {
        out[i] = "[unprintable]";
      }
    }
    const at = now();
    let json = ascii(stringify(bare([level, at, out])));
    if (json.length > LINE_MAX) {
      let text = "";
      for (let i = 0; i < out.length; i++) text += (i ? " " : "") + (typeof out[i] === "string" ? out[i] : stringify(out[i]));
      // a character takes one byte, or six where it is escaped
      for (let room = LINE_MAX - 128; json.length > LINE_MAX; room >>= 1) {
        json = ascii(stringify(bare([level, at, bare([apply(slice, text, [0, room]) + "… [truncated]"])])));
      }
    }
    add(invocation, "lines", json);
  } catch {
    // a guest that broke the realm loses its lines, nothing else
  }
}

function describeError(error) {
  let name = "Error";
  let message = "";
  let stack = "";
  try {
    if (isA(error, Error_)) {
      name = String_(error.name);
      message = String_(error.message);
      const own = error.stack;
      if (typeof own === "string") stack = own;
    } else {
      const shown = printable(error, 1);
      message = typeof shown === "string" ? shown : stringify(shown);
    }
  } catch {
    message ||= "[a value that cannot be printed]";
  }
  const cut = (text) => (text.length > LINE_MAX / 2 ? apply(slice, text, [0, LINE_MAX / 2]) + "…" : text);
  return ascii(stringify(bare([cut(name), cut(message), cut(stack), now()])));
}

function drainText(invocation, outcome) {
  const text = '{"o":"' + (outcome ?? "ok") + '","l":[' + invocation.lines + '],"e":[' + invocation.errors + "]}";
  invocation.lines = "";
  invocation.errors = "";
  return text;
}

// Lines written after the answer go over the log socket, a few milliseconds' worth at a time.
function flushSoon(invocation) {
  if (invocation.flushing || invocation.log === null) return;
  invocation.flushing = true;
  try {
    keepAlive(invocation.ctx, flush(invocation));
  } catch {
    invocation.flushing = false;
  }
}

async function flush(invocation) {
  await new Promise_((resolve) => later(resolve, 5));
  invocation.flushing = false;
  await post(invocation);
}

// One that has no answer yet may never have one: what it has said so far is told all the same, so
// that the host knows it when it gives up. Holds nothing up: an answer does not wait for this.
function watch(invocation) {
  const at = now();
  // a timer ends with the invocation that it was set in, which may be another one
  if (invocation.log === null || at - invocation.watched < 10 * UNANSWERED_MS) return;
  invocation.watched = at;
  try {
    later(() => {
      invocation.watched = 0;
      if (!invocation.answered) keepAlive(invocation.ctx, post(invocation));
    }, UNANSWERED_MS);
  } catch {
    // too many timers: the next line may have one
  }
}

let nativeWaitUntil = null;

// Puts a `waitUntil` in the native one's place that tells what the promise was rejected with.
function watchContext(ctx) {
  const prototype = getPrototypeOf(ctx);
  nativeWaitUntil = prototype.waitUntil;
  prototype.waitUntil = function waitUntil(promise) {
    return apply(nativeWaitUntil, this, [told(promise, store() ?? latest)]);
  };
}

// Promises given to `waitUntil` that have not settled: the host ends no isolate that has some.
let waiting = 0;
const pending = () => waiting;

async function told(promise, invocation) {
  waiting++;
  try {
    return await promise;
  } catch (error) {
    if (invocation !== undefined) add(invocation, "errors", describeError(error));
    throw error;
  } finally {
    waiting--;
  }
}

/** `ctx.waitUntil` for our own work. */
function keepAlive(ctx, promise) {
  apply(nativeWaitUntil, ctx, [promise]);
}

async function post(invocation) {
  if (invocation.lines === "" && invocation.errors === "") return;
  const body = drainText(invocation);
  try {
    await invocation.log(invocation.request, body);
  } catch {
    // the host is going away
  }
}

for (const level of ["log", "info", "warn", "error", "debug", "trace", "dir", "table"]) {
  const as = level === "trace" ? "debug" : level === "dir" || level === "table" ? "log" : level;
  console[level] = (...args) => collect(as, args);
}
console.assert = (ok, ...args) => {
  if (!ok) collect("error", ["Assertion failed:", ...args]);
};
for (const level of ["group", "groupCollapsed", "dirxml"]) console[level] = (...args) => collect("log", args);

// Counts and timers are the isolate's, as in the console that these stand for.
const LABELS_MAX = 1000;
const mapGet = Function.prototype.call.bind(Map.prototype.get);
const mapSet = Function.prototype.call.bind(Map.prototype.set);
const mapDelete = Function.prototype.call.bind(Map.prototype.delete);
const mapSize = Function.prototype.call.bind(Object.getOwnPropertyDescriptor(Map.prototype, "size").get);
const counts = new Map_();
const timers = new Map_();

function keepLabel(map, label, value) {
  if (mapGet(map, label) !== undefined || mapSize(map) < LABELS_MAX) mapSet(map, label, value);
}

console.count = (label = "default") => {
  label = apply(slice, String_(label), [0, 256]);
  const count = (mapGet(counts, label) ?? 0) + 1;
  keepLabel(counts, label, count);
  collect("log", [label + ": " + count]);
};
console.countReset = (label = "default") => {
  label = apply(slice, String_(label), [0, 256]);
  if (!mapDelete(counts, label)) collect("warn", ["Count for '" + label + "' does not exist"]);
};
console.time = (label = "default") => {
  label = apply(slice, String_(label), [0, 256]);
  if (mapGet(timers, label) === undefined) keepLabel(timers, label, now());
  else collect("warn", ["Timer '" + label + "' already exists"]);
};
function elapsed(label, args) {
  const since = mapGet(timers, label);
  if (since === undefined) collect("warn", ["Timer '" + label + "' does not exist"]);
  else collect("log", [label + ": " + (now() - since) + " ms", ...args]);
}
console.timeLog = (label = "default", ...args) => elapsed(apply(slice, String_(label), [0, 256]), args);
console.timeEnd = (label = "default") => {
  label = apply(slice, String_(label), [0, 256]);
  elapsed(label, []);
  mapDelete(timers, label);
};

// Calls of a socket's listeners and of a stream's source come without the context of the
// invocation that they belong to: it is kept here, so that their console lines find their place.
function within(invocation, callback) {
  return function (...args) {
    return run(invocation, () => {
      try {
        return apply(callback, this, args);
      } catch (error) {
        add(invocation, "errors", describeError(error));
        throw error;
      }
    });
  };
}

const { addEventListener: listen, removeEventListener: unlisten } = EventTarget.prototype;
const wrapped = new WeakMap_();
const find = Function.prototype.call.bind(WeakMap.prototype.get);
const keep = Function.prototype.call.bind(WeakMap.prototype.set);

WebSocket.prototype.addEventListener = function addEventListener(type, listener, ...rest) {
  const invocation = store();
  let mine = listener;
  if (invocation !== undefined && typeof listener === "function") {
    const known = find(wrapped, this) ?? new WeakMap_();
    keep(wrapped, this, known);
    mine = find(known, listener) ?? within(invocation, listener);
    keep(known, listener, mine);
  }
  return apply(listen, this, [type, mine, ...rest]);
};
WebSocket.prototype.removeEventListener = function removeEventListener(type, listener, ...rest) {
  const known = typeof listener === "function" ? find(wrapped, this) : undefined;
  return apply(unlisten, this, [type, (known && find(known, listener)) ?? listener, ...rest]);
};

globalThis.ReadableStream = new Proxy(ReadableStream, {
  __proto__: null, // no traps that a guest gave to all objects
  construct(target, args, newTarget) {
    const invocation = store();
    const source = args[0];
    if (invocation !== undefined && typeof source === "object" && source !== null) {
      const { start, pull, cancel } = source;
      const bound = { __proto__: source };
      // each keeps the source as its `this`: a source with private fields needs that
      if (typeof start === "function") bound.start = (controller) => apply(start, source, [controller]);
      if (typeof pull === "function") bound.pull = within(invocation, (controller) => apply(pull, source, [controller]));
      if (typeof cancel === "function") bound.cancel = within(invocation, (reason) => apply(cancel, source, [reason]));
      args[0] = bound;
    }
    return construct(target, args, newTarget);
  },
});
ReadableStream.prototype.constructor = ReadableStream;

// The classic form: `addEventListener("fetch", (event) => event.respondWith(...))`, with
// bindings as globals. Other event types keep their usual meaning.
const listeners = { __proto__: null };
const addListener = globalThis.addEventListener;
globalThis.addEventListener = function (type, listener, ...rest) {
  if (type === "fetch" || type === "scheduled" || type === "queue") {
    listeners[type] ??= listener;
    return undefined;
  }
  return apply(addListener, globalThis, [type, listener, ...rest]);
};
// By these a guest would call our entrypoints as the host does. They are asked of a Proxy, which
// must not say anything else of what its target has for good: asking throws.
for (const name of ["default", "AmbaControl"]) {
  Object.defineProperty(loopback, name, { __proto__: null, value: undefined });
}
const logService = bindings.__AMBA_LOG;
const mark = bindings.__AMBA_MARK;
const silent = bindings.__AMBA_SILENT === "1";
const classic = bindings.__AMBA_CLASSIC;
// what a guest imports from cloudflare:workers is this same object
delete bindings.__AMBA_LOG;
delete bindings.__AMBA_MARK;
delete bindings.__AMBA_CLASSIC;
delete bindings.__AMBA_SILENT;
delete bindings.__AMBA_LIMITS;
function asGlobals(values) {
  if (classic) for (const name of ObjectKeys(values)) globalThis[name] = values[name];
}
asGlobals(bindings);

// New values of text bindings, for whoever reads them from now on.
function rebind(values) {
  for (const name of ObjectKeys(values)) bindings[name] = values[name];
  asGlobals(values);
}

// Whose fetch this is: with its context, or (a bundle without one, by a detour) the newest's.
function invocationNow() {
  return store() ?? newest;
}

function onBreach(tell) {
  breached = tell;
}

// Handed out once, to the shim: a guest can import this module, too, for as long as it may use
// `eval`, and must not speak to the host in our name.
let internals = {
  __proto__: null, run, begun, Invocation, startup, add, describeError, drainText, post, listeners, isA,
  keepAlive, logService, mark, silent, watchContext, rebind, pending, invocationNow, onBreach,
  hasContext: () => store() !== undefined, most: SUBREQUESTS, atOnce: AT_ONCE,
};
export function take() {
  const given = internals;
  internals = null;
  return given;
}
