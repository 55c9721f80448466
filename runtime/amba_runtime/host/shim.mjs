// Wraps the guest's handlers: gives them a clean env, collects their console lines and
// exceptions, and hands both to the host on a response header that the host removes.
// That header stands on an answer of our own: a guest does not see it on its own objects.
// Our functions know the header's name, so a guest had better not call them: the engine knows this
// module by a name that no JavaScript string can say (config.py), and the other way to what it
// exports is closed (prelude.mjs). A guest that learns the name all the same can lie about itself
// alone: the host believes no name of an invocation that it does not know (callers.py).

import { take } from "./prelude.mjs";
import { guardFetches } from "./subrequests.mjs";
import { WorkerEntrypoint } from "cloudflare:workers";

const internals = take();
const {
  run, begun, Invocation, startup, add, describeError, drainText, post, listeners, isA, keepAlive,
  logService, mark, silent, watchContext, rebind, pending,
} = internals;

const Response_ = Response;
const Headers_ = Headers;
const { apply } = Reflect;
const { defineProperty } = Object;
function getter(type, name) {
  let holder = type.prototype;
  while (!Object.hasOwn(holder, name)) holder = Object.getPrototypeOf(holder);
  return Object.getOwnPropertyDescriptor(holder, name).get;
}
const requestHeaders = getter(Request, "headers");
const responseHeaders = getter(Response, "headers");
const webSocketOf = getter(Response, "webSocket");
const isUsed = getter(Response, "bodyUsed");
const statusOf = getter(Response, "status");
const bodyOf = getter(Response, "body");
const setHeader = Headers.prototype.set;
const getHeader = Headers.prototype.get;
const hold = setTimeout;
const letGo = clearTimeout;
const keys = Object.keys;
const slice = String.prototype.slice;
const String_ = String;
const sourceOf = Function.prototype.call.bind(Function.prototype.toString);
const logFetch = logService.fetch;

guardFetches(internals);

// Imported after everything above was taken: the guest's module runs now.
const { guest } = await import("./guest.mjs");
// by this name the host knows our header from one that a guest or an upstream made up
const TELL = "amba-run-" + mark;
const HEADER_MAX = 24576;

// Each invocation is given a copy: what one does to its `env` is no other's matter.
let guestEnv = null;
let changed = null; // text bindings that got new values since the start

function settle(env, ctx) {
  watchContext(ctx);
  guestEnv = {};
  const names = keys(env);
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    if (apply(slice, name, [0, 7]) !== "__AMBA_") guestEnv[name] = env[name];
  }
  if (changed !== null) guestEnv = { ...guestEnv, ...changed };
}

async function sendLog(name, body) {
  const headers = { __proto__: null, "amba-run-invocation": name };
  await apply(logFetch, logService, ["http://log/", { __proto__: null, method: "POST", headers, body }]);
}

function logRequest(request, body) {
  const headers = apply(requestHeaders, request, []);
  return sendLog(apply(getHeader, headers, ["x-amba-request-id"]) ?? "", body);
}

class ClassicEvent {
  constructor(type, ctx) {
    this.type = type;
    this.waitUntil = (promise) => ctx.waitUntil(promise);
    this.passThroughOnException = () => ctx.passThroughOnException();
  }
}

function classicFetch(listener, request, ctx) {
  const event = new ClassicEvent("fetch", ctx);
  event.request = request;
  let answer;
  event.respondWith = (response) => {
    if (answer !== undefined) throw new TypeError("respondWith() was called twice");
    answer = response ?? null;
  };
  listener(event);
  if (answer === undefined) throw new TypeError("the fetch listener did not call event.respondWith()");
  return answer;
}

function callFetch(request, ctx) {
  const entry = guest.default;
  if (entry !== undefined && entry !== null && typeof entry.fetch === "function") {
    return entry.fetch(request, { ...guestEnv }, ctx);
  }
  if (listeners.fetch) return classicFetch(listeners.fetch, request, ctx);
  throw new TypeError("the function has no fetch handler");
}

// A promise that is resolved with an answer asks it for `then`: a getter that a guest gave to all
// objects would be shown the header.
function unseen(ours) {
  defineProperty(ours, "then", { __proto__: null, value: undefined });
  return ours;
}

function tell(response, invocation) {
  if (invocation.size > HEADER_MAX || apply(webSocketOf, response, [])) {
    keepAlive(invocation.ctx, post(invocation));
    return response;
  }
  let ours;
  try {
    // status, headers, `cf` and how the body is encoded: the engine itself reads them off a Response
    ours = unseen(new Response_(apply(bodyOf, response, []), response));
  } catch {
    keepAlive(invocation.ctx, post(invocation));
    return response; // the engine refuses it, and says why
  }
  apply(setHeader, apply(responseHeaders, ours, []), [TELL, drainText(invocation, "ok")]);
  return ours;
}

function failed(error, invocation) {
  invocation.answered = true;
  add(invocation, "errors", describeError(error));
  let text = '{"o":"exception"}';
  if (invocation.size > HEADER_MAX) keepAlive(invocation.ctx, post(invocation));
  else text = drainText(invocation, "exception");
  const headers = new Headers_();
  apply(setHeader, headers, [TELL, text]);
  return unseen(new Response_(null, { __proto__: null, status: 500, headers }));
}

function answered(response, invocation) {
  let used;
  try {
    apply(statusOf, response, []); // throws for what is no Response: a Request, a Proxy of one
    used = apply(isUsed, response, []);
  } catch {
    return failed(new TypeError("the fetch handler did not return a Response"), invocation);
  }
  if (used) {
    return failed(new TypeError("the fetch handler returned a Response whose body was read"), invocation);
  }
  invocation.answered = true;
  return invocation.size === 0 ? response : tell(response, invocation);
}

function invoke(request, ctx, invocation) {
  let response;
  try {
    response = callFetch(request, ctx);
  } catch (error) {
    return failed(error, invocation);
  }
  return isA(response, Response_) ? answered(response, invocation) : wait(response, invocation);
}

// A promise that nothing can settle would be cancelled by the engine at once; held by a timer
// it waits for the host's own deadline, as a handler that is merely slow does.
async function wait(promise, invocation) {
  const timer = hold(nothing, 2147483647);
  let response;
  try {
    response = await promise;
  } catch (error) {
    letGo(timer);
    return failed(error, invocation);
  }
  letGo(timer);
  return answered(response, invocation);
}

function nothing() {}

// Events have no response to carry a header: lines go over the log socket under the name that
// the host gave, before the event is reported as done.
const callers = { __proto__: null }; // by label, names of events that are about to be delivered

async function event(label, ctx, call) {
  const coming = callers[label];
  const name = coming?.name ?? "";
  if (coming?.next === undefined) delete callers[label];
  else callers[label] = coming.next;
  const invocation = new Invocation(name, ctx, sendLog);
  invocation.id = name;
  return run(invocation, async () => {
    try {
      await call();
    } catch (error) {
      add(invocation, "errors", describeError(error));
      throw error;
    } finally {
      invocation.answered = true;
      await post(invocation);
    }
  });
}

export default {
  fetch(request, env, ctx) {
    if (guestEnv === null) settle(env, ctx);
    const invocation = new Invocation(request, ctx, logRequest);
    // a bundle that never names the console needs no tracking of whose line is whose
    if (silent) return invoke(request, ctx, begun(invocation));
    return run(invocation, invoke, request, ctx, invocation);
  },
  scheduled(controller, env, ctx) {
    if (guestEnv === null) settle(env, ctx);
    const label = `scheduled ${+controller.scheduledTime} ${controller.cron}`;
    // production's controller says what it is; this engine's does not (contract B)
    if (controller.type === undefined) {
      Object.defineProperty(controller, "type", { value: "scheduled", enumerable: true });
    }
    return event(label, ctx, () => {
      const entry = guest.default;
      if (typeof entry?.scheduled === "function") return entry.scheduled(controller, { ...guestEnv }, ctx);
      if (!listeners.scheduled) throw new TypeError("the function has no scheduled handler");
      const e = new ClassicEvent("scheduled", ctx);
      e.cron = controller.cron;
      e.scheduledTime = controller.scheduledTime;
      e.noRetry = () => controller.noRetry();
      return listeners.scheduled(e);
    });
  },
  queue(batch, env, ctx) {
    if (guestEnv === null) settle(env, ctx);
    const label = `queue ${batch.queue} ${batch.messages[0]?.id ?? ""}`;
    return event(label, ctx, () => {
      const entry = guest.default;
      if (typeof entry?.queue === "function") return entry.queue(batch, { ...guestEnv }, ctx);
      if (!listeners.queue) throw new TypeError("the function has no queue handler");
      return listeners.queue(batch);
    });
  },
};

function thrown(error) {
  try {
    return apply(slice, String_(error), [0, 500]);
  } catch {
    return "something that cannot be turned into text";
  }
}

export class AmbaControl extends WorkerEntrypoint {
  // Text with one fact a line: nothing that a guest did to objects or arrays can touch it.
  describe() {
    const entry = guest.default;
    let kind = "none";
    if (typeof entry === "function") {
      kind = apply(slice, sourceOf(entry), [0, 5]) === "class" ? "class" : "function";
    } else if (typeof entry === "object" && entry !== null) {
      kind = "object";
    } else if (listeners.fetch || listeners.scheduled || listeners.queue) {
      kind = "listener";
    }
    let handlers = "";
    let fault = "";
    for (let i = 0; i < 3; i++) {
      const name = i === 0 ? "fetch" : i === 1 ? "scheduled" : "queue";
      try {
        const has = kind === "object" ? typeof entry[name] === "function" : kind === "listener" && name in listeners;
        if (has) handlers += " " + name;
      } catch (error) {
        // a getter, or a trap of a Proxy
        if (fault === "") fault = name + ": " + thrown(error);
      }
    }
    return kind + "\n" + handlers + "\n" + drainText(startup) + "\n" + fault;
  }
  // New values for later invocations; those under way keep the env object that they have.
  configure(values) {
    changed = { ...changed, ...values };
    if (guestEnv !== null) guestEnv = { ...guestEnv, ...values };
    rebind(values);
    return {};
  }
  // The name that an event goes by, told before it comes.
  coming(label, caller) {
    // two at once may have one label: a schedule's slot, and the same one fired by hand
    callers[label] = { __proto__: null, name: caller, next: callers[label] };
    return {};
  }
  pending() {
    return { pending: pending() };
  }
}

// The engine sets both on each instance: not by a setter that a guest gave to all objects, which
// would be shown the instance.
const PLAIN = { __proto__: null, value: undefined, writable: true };
defineProperty(AmbaControl.prototype, "ctx", PLAIN);
defineProperty(AmbaControl.prototype, "env", PLAIN);
