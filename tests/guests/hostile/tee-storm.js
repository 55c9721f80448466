// Shows: an endless body that is split in two fifty times, of which one branch is read. GET / answers 200.

const CHUNK = new Uint8Array(65536).fill(1);

export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/") return new Response("idle\n");
    let body = new ReadableStream({
      pull(controller) {
        controller.enqueue(CHUNK.slice());
      },
    });
    const kept = [];
    for (let n = 0; n < 50; n += 1) {
      const [one, other] = body.tee();
      kept.push(one);
      body = other;
    }
    globalThis.kept = kept;
    return new Response(body);
  },
};
