// Logs: what can be handed to console, and work after the response.

const hostile = {
  get secret() {
    throw new Error("getter");
  },
  toString() {
    throw new Error("toString");
  },
  toJSON() {
    throw new Error("toJSON");
  },
};

export const logs = {
  /** One line per level and per kind of value. */
  "/log"() {
    const cyclic = { name: "cyclic" };
    cyclic.self = cyclic;
    console.log("a text", 1, true, null, undefined);
    console.info({ nested: { list: [1, "two", { three: 3 }] } });
    console.warn(new TypeError("a logged error"));
    console.error("cyclic", cyclic);
    console.debug(new Map([["k", 1n]]), new Set([1]), Symbol("s"), () => 1, new Date(0));
    console.log("%s is %d", "format", 7);
    console.log(hostile);
    console.log();
    console.log("two\nlines", "\u001b[31mred\u001b[0m", "\u0000", "☕ \ud800");
    return new Response("logged\n");
  },

  /** ?lines= lines of ?bytes= each. */
  "/big-log"(_request, query) {
    const line = "x".repeat(Number(query.get("bytes") ?? 1024));
    for (let n = 0; n < Number(query.get("lines") ?? 1000); n += 1) {
      console.log(n, line);
    }
    return new Response("logged\n");
  },

  /** Answers, then logs after ?ms=; with ?fail the work rejects. */
  "/wait-until"(_request, query, { ctx }) {
    const work = async () => {
      await new Promise((resolve) => setTimeout(resolve, Number(query.get("ms") ?? 20)));
      if (query.has("fail")) {
        throw new Error("failed after the response");
      }
      console.log("logged after the response");
    };
    ctx.waitUntil(work());
    console.log("logged before the response");
    return new Response("answered\n");
  },

  /** A line, then an exception: both belong to the same invocation. */
  "/log-then-throw"() {
    console.log("the last words");
    throw new Error("after the last words");
  },

  /** The line carries ?mark=, twice, with a wait between: concurrent invocations must not mix. */
  async "/log-mark"(_request, query) {
    console.log("first", query.get("mark"));
    await new Promise((resolve) => setTimeout(resolve, Number(query.get("ms") ?? 20)));
    console.log("second", query.get("mark"));
    return new Response(query.get("mark"));
  },
};
