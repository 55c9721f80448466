// Shows: ArrayBuffers, which V8's heap limit does not count, written full without end. GET / answers 200.

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const kept = [];
      for (;;) kept.push(new Uint8Array(4 * 1024 * 1024).fill(kept.length + 1));
    }
    return new Response("idle\n");
  },
};
