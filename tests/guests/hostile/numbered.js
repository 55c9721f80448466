// Shows: an answer in many pieces, for whoever ends the engine in their midst. GET / answers 200.
// /pieces?n=N&ms=M sends N numbered lines of 1,000 bytes, one each M ms.

export default {
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const n = Number(searchParams.get("n"));
    const ms = Number(searchParams.get("ms"));
    const encoder = new TextEncoder();
    let at = 0;
    return new Response(
      new ReadableStream({
        async pull(controller) {
          await new Promise((done) => setTimeout(done, ms));
          if (at === n) return controller.close();
          controller.enqueue(encoder.encode(`${at}`.padEnd(999, ".") + "\n"));
          at += 1;
        },
      }),
    );
  },
};
