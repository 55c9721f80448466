// Puts counting functions in the place of whatever makes a subrequest: `fetch`, and the few that
// fetch by themselves. Counted per invocation: in all, and how many wait for their answers at
// once; the others queue. Source: reliability.md 2.3 and rows E17 to E19.
// Calls of a cache, of STORAGE and of EDGE_DB_PROXY count as well, as they do in production.
// A guest can get round what stands here; the host counts once more (tally.py).
// What `fetch` means stays: it makes a Request of its arguments itself, as is done here.

import { env as bindings } from "cloudflare:workers";

const { apply, construct } = Reflect;
const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf, hasOwn } = Object;
const Request_ = Request;
const Promise_ = Promise;
const Error_ = Error;
const rejected = Promise.reject;
const then = Promise.prototype.then;
const listen = EventTarget.prototype.addEventListener;
const setHeader = Headers.prototype.set;
const getHeader = Headers.prototype.get;

function holderOf(object, name) {
  while (!hasOwn(object, name)) object = getPrototypeOf(object);
  return object;
}

function getter(type, name) {
  return getOwnPropertyDescriptor(holderOf(type.prototype, name), name).get;
}
const headersOf = getter(Request, "headers");
const signalOf = getter(Request, "signal");

// Where it lies, and nowhere else: a guest that looks for the native one finds this.
function replace(object, name, make) {
  const holder = holderOf(object, name);
  const before = getOwnPropertyDescriptor(holder, name);
  defineProperty(holder, name, { __proto__: null, ...before, value: make(before.value) });
}

function nothing() {}

// For the shim, once: a guest may import this module, and must find nothing here.
let guarded = false;
export function guardFetches(internals) {
  if (guarded) return;
  guarded = true;
  guard(internals);
}

function guard({ invocationNow, hasContext, keepAlive, onBreach, mark, silent, most, atOnce }) {
  // names that a guest is not shown; the host takes them off, and believes what it can check
  const CALLER = "amba-run-" + mark + "-caller";
  const BREACH = "amba-run-" + mark + "-breach";
  let nativeFetch = null;

  const send = (request) => apply(nativeFetch, globalThis, [request]);

  function callerOf(invocation) {
    if (invocation.id === null) { // an event was given one
      const headers = apply(headersOf, invocation.request, []);
      invocation.id = apply(getHeader, headers, ["x-amba-request-id"]) ?? "";
    }
    return invocation.id;
  }

  // A guess (a bundle that runs without a context) says that it is one; a context that was lost
  // in a bundle that has one says nothing: the host charges it to whoever is under way.
  function signed(invocation, request) {
    const sure = hasContext();
    if (!sure && !silent) return request;
    const id = callerOf(invocation);
    if (id !== "") apply(setHeader, apply(headersOf, request, []), [CALLER, sure ? id : "~" + id]);
    return request;
  }

  function tell(invocation, name, used, limit) {
    if (invocation.ctx === null) return;
    try {
      const request = signed(invocation, new Request_("http://limit.invalid/"));
      apply(setHeader, apply(headersOf, request, []), [BREACH, name + " " + used + " " + limit]);
      keepAlive(invocation.ctx, apply(then, send(request), [nothing, nothing]));
    } catch {
      // the host is going away, or the guest has broken the realm
    }
  }
  onBreach(tell);

  function check(invocation) {
    if (invocation.fetches < most) return;
    if (!invocation.over) {
      invocation.over = true;
      tell(invocation, "subrequests", most + 1, most);
    }
    throw new Error_(
      "Too many subrequests: one invocation of this function may make " + most + ' (limit "subrequests")',
    );
  }

  function count(invocation) {
    check(invocation);
    invocation.fetches++;
  }

  // Its answer has begun, or will never come: the next in line goes.
  function release(invocation) {
    for (;;) {
      const place = invocation.first;
      if (place === null) {
        invocation.open--;
        return;
      }
      invocation.first = place.next;
      if (place.next === null) invocation.last = null;
      if (place.go !== null) {
        place.go(true);
        return;
      }
    }
  }

  function sendCounted(invocation, request) {
    let answer;
    const done = () => release(invocation);
    try {
      answer = send(request);
    } catch (error) {
      done();
      throw error;
    }
    apply(then, answer, [done, done]);
    return answer;
  }

  function queue(invocation, request) {
    return new Promise_((resolve, reject) => {
      const place = { __proto__: null, next: null, go: null };
      place.go = (inTurn) => {
        place.go = null;
        try {
          resolve(inTurn ? sendCounted(invocation, request) : send(request));
        } catch (error) {
          reject(error);
        }
      };
      if (invocation.last === null) invocation.first = place;
      else invocation.last.next = place;
      invocation.last = place;
      const leave = () => place.go !== null && place.go(false); // it fails at once, as aborted
      apply(listen, apply(signalOf, request, []), ["abort", leave, { __proto__: null, once: true }]);
    });
  }

  replace(globalThis, "fetch", (native) => {
    nativeFetch = native;
    return function fetch(input, init) {
      const invocation = invocationNow();
      // outside of any, the engine says what is wrong; so it does with no arguments
      if (invocation === undefined || arguments.length === 0) return apply(native, globalThis, arguments);
      try {
        check(invocation);
        const request = signed(invocation, new Request_(input, init));
        invocation.fetches++;
        // one whose invocation can only be guessed waits for none of that one's
        if (!hasContext()) return send(request);
        if (invocation.open >= atOnce) return queue(invocation, request);
        invocation.open++;
        return sendCounted(invocation, request);
      } catch (error) {
        return apply(rejected, Promise_, [error]);
      }
    };
  });

  for (const name of ["WebSocket", "EventSource"]) {
    const prototype = globalThis[name].prototype;
    replace(globalThis, name, (native) => {
      const counted = new Proxy(native, {
        __proto__: null, // no traps that a guest gave to all objects
        construct(target, args, newTarget) {
          const invocation = invocationNow();
          if (invocation !== undefined) count(invocation);
          return construct(target, args, newTarget);
        },
      });
      prototype.constructor = counted;
      return counted;
    });
  }

  function counted(native) {
    const call = function (...args) {
      const invocation = invocationNow();
      try {
        if (invocation !== undefined) count(invocation);
      } catch (error) {
        return apply(rejected, Promise_, [error]);
      }
      return apply(native, this, args);
    };
    for (const fact of ["name", "length"]) defineProperty(call, fact, getOwnPropertyDescriptor(native, fact));
    return call;
  }
  const services = [[Cache.prototype, ["match", "put", "delete"]]];
  const bucket = bindings.STORAGE;
  if (bucket !== undefined) {
    services.push([getPrototypeOf(bucket), ["head", "get", "put", "list", "delete", "createMultipartUpload"]]);
    const upload = bucket.resumeMultipartUpload("none", "none");
    services.push([getPrototypeOf(upload), ["uploadPart", "complete", "abort"]]);
  }
  const database = bindings.EDGE_DB_PROXY;
  if (database !== undefined) services.push([getPrototypeOf(database), ["fetch"]]);
  for (const [prototype, names] of services) {
    for (const name of names) replace(prototype, name, counted);
  }

  // by `fetch`, which says whose it is: a beacon to oneself would begin a trace without end
  replace(navigator, "sendBeacon", (native) => function sendBeacon(url, data) {
    const invocation = invocationNow();
    if (invocation === undefined || invocation.ctx === null || arguments.length === 0) {
      return apply(native, this, arguments);
    }
    const request = signed(invocation, new Request_(url, { __proto__: null, method: "POST", body: data }));
    count(invocation);
    keepAlive(invocation.ctx, apply(then, send(request), [nothing, nothing]));
    return true;
  });
}
