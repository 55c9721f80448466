// Runs before the guest's module: takes what the shim needs from the realm while it is still
// whole, and puts collecting functions in the place of console and addEventListener.
// The guest shares this realm afterwards, so what is collected is untrusted text for the host.

import { AsyncLocalStorage } from "node:async_hooks";
import { env as bindings } from "cloudflare:workers";

const { apply } = Reflect;
const { stringify } = JSON;
const { isArray } = Array;
const now = Date.now;
const String_ = String;
const Error_ = Error;
const replace = String.prototype.replace;
const slice = String.prototype.slice;
const charCodeAt = String.prototype.charCodeAt;
const toString16 = Number.prototype.toString;
const later = setTimeout;
const ObjectKeys = Object.keys;

export const current = new AsyncLocalStorage();
export const run = AsyncLocalStorage.prototype.run.bind(current);
const store = AsyncLocalStorage.prototype.getStore.bind(current);

const LINE_MAX = 16384;
const TOTAL_MAX = 262144;

// One invocation's collected text: `lines` is JSON rows joined by commas.
export class Invocation {
  lines = "";
  errors = "";
  size = 0;
  full = false;
  answered = false;
  flushing = false;
  constructor(request, ctx, log) {
    this.request = request;
    this.ctx = ctx;
    this.log = log;
  }
}

export const startup = new Invocation(null, null, null);

function ascii(json) {
  return apply(replace, json, [/[\u007f-\uffff]/g, (c) => {
    const hex = apply(toString16, apply(charCodeAt, c, [0]), [16]);
    return "\\u" + apply(slice, "0000" + hex, [-4]);
  }]);
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
  if (value instanceof Error_) {
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
    if (typeof v !== "object" || v === null || v instanceof Error_) return printable(v, 0);
    if (--budget < 0) return "…";
    for (let i = 0; i < path.length; i++) if (path[i] === v) return "[Circular]";
    if (path.length > 8) return isArray(v) ? "[Array]" : "[Object]";
    path[path.length] = v;
    let out;
    if (typeof v.toJSON === "function") {
      out = walk(v.toJSON());
    } else if (isArray(v)) {
      out = [];
      for (let i = 0; i < v.length && i < 200; i++) out[i] = walk(v[i]);
    } else if (v instanceof Map) {
      out = { "[Map]": walk([...v]) };
    } else if (v instanceof Set) {
      out = { "[Set]": walk([...v]) };
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

export function add(invocation, kind, json) {
  if (invocation.full) return;
  if (invocation.size + json.length > TOTAL_MAX) {
    invocation.full = true;
    json = stringify(["warn", now(), ["[amba-run] further console lines were dropped: 256 KiB per invocation"]]);
    kind = "lines";
  }
  invocation.size += json.length;
  invocation[kind] = invocation[kind] === "" ? json : invocation[kind] + "," + json;
  if (invocation.answered) flushSoon(invocation);
}

function collect(level, args) {
  const invocation = store() ?? startup;
  try {
    const out = [];
    for (let i = 0; i < args.length && i < 100; i++) {
      try {
        out[i] = printable(args[i], 1);
      } catch {
        out[i] = "[unprintable]";
      }
    }
    let json = ascii(stringify([level, now(), out]));
    if (json.length > LINE_MAX) {
      let text = "";
      for (let i = 0; i < out.length; i++) text += (i ? " " : "") + (typeof out[i] === "string" ? out[i] : stringify(out[i]));
      json = ascii(stringify([level, now(), [apply(slice, text, [0, LINE_MAX / 8]) + "… [truncated]"]]));
    }
    add(invocation, "lines", json);
  } catch {
    // a guest that broke the realm loses its lines, nothing else
  }
}

export function describeError(error) {
  let name = "Error";
  let message = "";
  let stack = "";
  try {
    if (error instanceof Error_) {
      name = String_(error.name);
      message = String_(error.message);
      stack = typeof error.stack === "string" ? error.stack : "";
    } else {
      message = typeof error === "string" ? error : stringify(printable(error, 1)) ?? String_(error);
    }
  } catch {
    message = "[a value that cannot be printed]";
  }
  const cut = (text) => (text.length > LINE_MAX / 2 ? apply(slice, text, [0, LINE_MAX / 2]) + "…" : text);
  return ascii(stringify([cut(name), cut(message), cut(stack), now()]));
}

export function drainText(invocation) {
  const text = '{"l":[' + invocation.lines + '],"e":[' + invocation.errors + "]}";
  invocation.lines = "";
  invocation.errors = "";
  return text;
}

// Lines written after the answer go over the log socket, a few milliseconds' worth at a time.
function flushSoon(invocation) {
  if (invocation.flushing || invocation.log === null) return;
  invocation.flushing = true;
  try {
    invocation.ctx.waitUntil(
      new Promise((resolve) => later(resolve, 5)).then(() => {
        invocation.flushing = false;
        return post(invocation);
      }),
    );
  } catch {
    invocation.flushing = false;
  }
}

export async function post(invocation) {
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
for (const level of ["group", "groupCollapsed"]) console[level] = (...args) => collect("log", args);

// The classic form: `addEventListener("fetch", (event) => event.respondWith(...))`, with
// bindings as globals. Other event types keep their usual meaning.
export const listeners = { __proto__: null };
const addListener = globalThis.addEventListener;
globalThis.addEventListener = function (type, listener, ...rest) {
  if (type === "fetch" || type === "scheduled" || type === "queue") {
    listeners[type] ??= listener;
    return undefined;
  }
  return apply(addListener, globalThis, [type, listener, ...rest]);
};
if (bindings.__AMBA_CLASSIC) {
  for (const name of ObjectKeys(bindings)) {
    if (apply(slice, name, [0, 7]) !== "__AMBA_") globalThis[name] = bindings[name];
  }
}
