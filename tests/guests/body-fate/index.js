// Shows: what becomes of a request's body: its promise resolves, or rejects. GET / answers 200.
// The log tells it, also when nobody waits for the answer any more.

export default {
  async fetch(request, _env, ctx) {
    const fate = request.arrayBuffer().then(
      (body) => console.log("body resolved with", body.byteLength),
      (error) => console.log("body rejected with", error.name),
    );
    ctx.waitUntil(fate);
    await fate;
    return new Response("read\n");
  },
};
