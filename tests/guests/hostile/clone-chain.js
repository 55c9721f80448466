// Shows: clones of clones of a response with a body of its own, each read to its end. GET / answers 200.

export default {
  async fetch(request) {
    if (new URL(request.url).pathname === "/") return new Response("idle\n");
    const kept = [];
    for (;;) {
      let response = new Response(new Uint8Array(1024 * 1024).fill(kept.length + 1));
      for (let n = 0; n < 20; n += 1) {
        const clone = response.clone();
        kept.push(await response.arrayBuffer());
        response = clone;
      }
    }
  },
};
