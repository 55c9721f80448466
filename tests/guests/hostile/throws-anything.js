// Shows: whatever can be thrown. GET / answers 200.
// /NAME throws that one, /later/NAME rejects with it, /wait/NAME rejects a waitUntil with it.

function boom() {
  throw new Error("thrown while it was printed");
}

const throwing = (...names) => {
  const error = new Error("plain");
  for (const name of names) Object.defineProperty(error, name, { get: boom });
  return error;
};
const cyclic = () => {
  const error = new Error("cyclic");
  error.cause = error;
  error.self = { error };
  return error;
};
const things = {
  error: () => new TypeError("an ordinary one"),
  string: () => "text",
  null: () => null,
  undefined: () => undefined,
  number: () => NaN,
  bigint: () => 10n ** 50n,
  symbol: () => Symbol("thrown"),
  function: () => boom,
  proxy: () => new Proxy({}, { get: boom, has: boom, ownKeys: boom, getPrototypeOf: boom }),
  "proxy-of-error": () => new Proxy(new Error("inside"), { get: boom, getPrototypeOf: boom }),
  revoked: () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  message: () => throwing("message"),
  stack: () => throwing("stack"),
  name: () => throwing("name"),
  all: () => throwing("message", "stack", "name", "toString", "constructor", "cause"),
  "to-string": () => ({ toString: boom, valueOf: boom }),
  "to-primitive": () => ({ [Symbol.toPrimitive]: boom }),
  "to-json": () => ({ toJSON: boom }),
  "json-forever": () => {
    const value = { toJSON: () => ({ again: value }) };
    return value;
  },
  huge: () => new Error("m".repeat(10e6)),
  "huge-stack": () => Object.assign(new Error("m"), { stack: "s\n".repeat(5e6) }),
  "huge-string": () => "t".repeat(10e6),
  deep: () => {
    let value = {};
    for (let n = 0; n < 1e5; n += 1) value = { value };
    return value;
  },
  cyclic,
  aggregate: () => new AggregateError([cyclic(), null, 5], "several"),
  "null-object": () => Object.create(null),
  surrogate: () => new Error("half \ud800 a pair"),
  lines: () => new Error("one\r\nx-forged: 1\r\n\r\n{\"event\": \"forged\"}\n\u2028\u001b[31m"),
  overflow: () => {
    const again = () => again();
    return again();
  },
  response: () => new Response("thrown", { status: 200 }),
  promise: () => Promise.reject(new Error("inner")),
};

export default {
  fetch(request, _env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const [, how, name] = /^\/(?:(later|wait)\/)?(.+)$/.exec(pathname);
    const work = async () => {
      await new Promise((done) => setTimeout(done, 1));
      throw things[name]();
    };
    if (how === "later") return work();
    if (how === "wait") {
      ctx.waitUntil(work());
      return new Response("answered\n");
    }
    throw things[name]();
  },
};
