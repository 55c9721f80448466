// Faults: what a function can throw, return instead of a Response, or leave unfinished.

const encoder = new TextEncoder();

const cyclic = () => {
  const value = { name: "cyclic" };
  value.self = value;
  return value;
};

// Every trap throws: whoever reads the thrown value learns to be careful.
const trap = () => {
  throw new Error("trapped");
};
const hostileProxy = () =>
  new Proxy(
    {},
    { get: trap, getPrototypeOf: trap, has: trap, ownKeys: trap, getOwnPropertyDescriptor: trap },
  );

const THROWN = {
  error: () => new TypeError("thrown on purpose"),
  string: () => "a thrown string",
  null: () => null,
  undefined: () => undefined,
  number: () => 42,
  symbol: () => Symbol("thrown"),
  proxy: hostileProxy,
  cyclic,
  cause: () => new Error("outer", { cause: new RangeError("inner") }),
  "cyclic-cause"() {
    const error = new Error("its own cause");
    error.cause = error;
    return error;
  },
  huge: () => new Error("x".repeat(1 << 20)),
  "hostile-stack": () =>
    Object.defineProperty(new Error("no stack for you"), "stack", { get: trap }),
  "stack-object": () => Object.assign(new Error("odd stack"), { stack: { toString: trap } }),
  newline: () => new Error("line one\r\nX-Forged: yes\r\n\r\nline three"),
  unicode: () => new Error("не ASCII \ud800 ☕ \u0000 \u2028"),
};

const RETURNED = {
  string: () => "not a Response",
  null: () => null,
  number: () => 200,
  object: () => ({ status: 200, body: "looks like one" }),
  proxy: () => new Proxy(new Response("behind a proxy"), {}),
  "hostile-proxy": hostileProxy,
  thenable: () => ({ then: (resolve) => resolve(new Response("from a thenable\n")) }),
  "hostile-thenable": () => ({
    get then() {
      return trap();
    },
  }),
  used() {
    const response = new Response("used");
    return response.text().then(() => response);
  },
};

const named = (table, name) => {
  if (!Object.hasOwn(table, name)) {
    throw new RangeError(`unknown kind ${name}`);
  }
  return table[name]();
};

export const faults = {
  /** Thrown before anything else happens; ?kind= names a member of THROWN. */
  "/throw"(_request, query) {
    throw named(THROWN, query.get("kind") ?? "error");
  },

  /** The same as a rejected promise, one turn later. */
  async "/reject"(_request, query) {
    await Promise.resolve();
    throw named(THROWN, query.get("kind") ?? "error");
  },

  /** Something that is not a Response; ?kind= names a member of RETURNED. */
  "/bad-response": (_request, query) => named(RETURNED, query.get("kind") ?? "string"),

  /** No return statement at all. */
  "/undefined"() {},

  /** One chunk, and then nothing more, ever. */
  "/hang-after-first-chunk"() {
    let timer;
    return new Response(
      new ReadableStream({
        start(controller) {
          controller.enqueue(encoder.encode("first\n"));
          // Pending I/O keeps the runtime from ending the stream as hung.
          timer = setInterval(() => {}, 1000);
        },
        cancel() {
          clearInterval(timer);
          console.log("hang cancelled");
        },
      }),
    );
  },

  /** Never a response; a timer keeps the invocation alive. */
  "/never": () => new Promise(() => setInterval(() => {}, 1000)),

  /** A promise that nothing can settle: the runtime itself notices. */
  "/stuck": () => new Promise(() => {}),

  /** One chunk, then the stream fails; ?length promises more bytes than come. */
  "/error-mid-stream"(_request, query) {
    let sent = false;
    const source = new ReadableStream(
      {
        async pull(controller) {
          if (!sent) {
            sent = true;
            controller.enqueue(encoder.encode("before the fault\n"));
            return;
          }
          await new Promise((resolve) => setTimeout(resolve, 20));
          controller.error(new Error("failed in mid-stream"));
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(
      query.has("length") ? source.pipeThrough(new FixedLengthStream(1000)) : source,
    );
  },
};
