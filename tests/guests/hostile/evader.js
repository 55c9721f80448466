// Shows: requests from outside of any invocation's context. GET / answers 200.
// The engine's realm counts by that context. /storm?to=URL&n=N begins N fetches from nowhere and says what became of them.
// /loop?to=URL answers at once, then asks URL from nowhere, after its own end. What is put together
// from pieces here is what an upload's look at the source would find.

const { AsyncLocalStorage } = await eval('import("node:" + "async_" + "hooks")');
const nowhere = AsyncLocalStorage.snapshot();

export default {
  async fetch(request, env, ctx) {
    const { pathname, searchParams } = new URL(request.url);
    const to = searchParams.get("to");
    if (pathname.endsWith("/loop")) {
      ctx.waitUntil(
        new Promise((resolve) => {
          setTimeout(() => nowhere(() => fetch(`${to}?to=${to}`).then(resolve, resolve)), 5);
        }),
      );
      return new Response("later\n");
    }
    if (!pathname.endsWith("/storm")) return new Response("idle\n");
    const told = { ok: 0, refused: 0 };
    const one = async () => {
      try {
        await (await nowhere(() => fetch(to))).arrayBuffer();
        told.ok += 1;
      } catch {
        told.refused += 1;
      }
    };
    await Promise.all(Array.from({ length: Number(searchParams.get("n")) }, one));
    return Response.json(told);
  },
};
