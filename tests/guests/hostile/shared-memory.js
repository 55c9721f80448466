// Shows: Worker, SharedArrayBuffer and Atomics.wait, as far as there are any. GET / answers 200.
// /there says what there is, /wait waits on shared memory for ever.

export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/there") {
      return Response.json({ worker: typeof Worker, shared: typeof SharedArrayBuffer });
    }
    if (pathname === "/wait") {
      const cell = new Int32Array(new SharedArrayBuffer(4));
      return new Response(Atomics.wait(cell, 0, 0));
    }
    return new Response("idle\n");
  },
};
