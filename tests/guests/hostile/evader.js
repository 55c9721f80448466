// Shows: requests outside of any invocation, or in a name made up. GET / answers 200.
// The engine's realm counts by the invocation's context and name.
// /storm?to=URL&n=N begins N fetches from nowhere and says what became of them.
// /forge?to=URL&n=N calls its own entrypoint N times as the host does, under ids of its making.
// /loop?to=URL answers at once, then asks URL from nowhere, after its own end; with &forge=1 under
// such an id where it can. What is put together from pieces here is what an upload's look at the
// source would find.

const { AsyncLocalStorage } = await eval('import("node:" + "async_" + "hooks")');
const { exports: ours } = await eval('import("cloudflare:" + "workers")');
const nowhere = AsyncLocalStorage.snapshot();

const forged = (to) =>
  ours.default.fetch(
    new Request(`http://inner.example/inner?to=${encodeURIComponent(to)}`, {
      headers: { "x-amba-request-id": `forged-${Math.random()}` },
    }),
  );

async function again(to, forge) {
  const next = `${to}?to=${to}${forge ? "&forge=1" : ""}`;
  if (forge) {
    try {
      return await forged(next);
    } catch {
      // it cannot be had: from nowhere then
    }
  }
  return nowhere(() => fetch(next));
}

export default {
  async fetch(request, env, ctx) {
    const { pathname, searchParams } = new URL(request.url);
    const to = searchParams.get("to");
    if (pathname === "/inner") return fetch(to);
    if (pathname.endsWith("/loop")) {
      const forge = searchParams.has("forge");
      ctx.waitUntil(
        new Promise((resolve) => {
          setTimeout(() => again(to, forge).then(resolve, resolve), 5);
        }),
      );
      return new Response("later\n");
    }
    const forge = pathname.endsWith("/forge");
    if (!forge && !pathname.endsWith("/storm")) return new Response("idle\n");
    const told = { ok: 0, refused: 0 };
    const one = async () => {
      try {
        await (await (forge ? forged(to) : nowhere(() => fetch(to)))).arrayBuffer();
        told.ok += 1;
      } catch {
        told.refused += 1;
      }
    };
    await Promise.all(Array.from({ length: Number(searchParams.get("n")) }, one));
    return Response.json(told);
  },
};
