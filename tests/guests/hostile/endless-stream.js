// Shows: an answer that never ends. GET / answers 200.
// /fast sends as much as is taken, /slow one byte every ?ms=N, /stuck one chunk and nothing more.

const CHUNK = new Uint8Array(1024 * 1024).fill(1);

export default {
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const ms = Number(searchParams.get("ms") ?? 1000);
    const pulls = {
      "/fast": (controller) => controller.enqueue(CHUNK.slice()),
      "/slow": async (controller) => {
        await new Promise((done) => setTimeout(done, ms));
        controller.enqueue(new Uint8Array(1));
      },
      "/stuck": (controller) => {
        controller.enqueue(new Uint8Array(1));
        return new Promise((done) => setTimeout(done, 3600e3)); // without it the engine sees a hang
      },
    };
    return new Response(new ReadableStream({ pull: pulls[pathname] }));
  },
};
