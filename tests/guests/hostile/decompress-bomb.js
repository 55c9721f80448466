// Shows: a gzip body unpacked to a thousand times its size. GET / answers 200.
// POST /keep holds all of it, POST /pass sends it on as it comes.

export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const unpacked = request.body.pipeThrough(new DecompressionStream("gzip"));
    if (pathname === "/pass") return new Response(unpacked);
    const kept = [];
    for await (const chunk of unpacked) kept.push(chunk);
    return Response.json({ chunks: kept.length });
  },
};
