// Shows: work that its caller walks away from. GET / answers 200.
// /work?to=URL waits for the answer of URL; /after?to=URL&ms=N asks it N ms later in waitUntil.

export default {
  async fetch(request, _env, ctx) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const to = searchParams.get("to");
    if (pathname === "/after") {
      const ms = Number(searchParams.get("ms"));
      const after = new Promise((done) => setTimeout(done, ms)).then(() => fetch(to));
      ctx.waitUntil(after);
      await after;
    }
    return fetch(to);
  },
};
