// Shows: what a function sees of its request, all of it, as JSON. GET / answers 200.
// `again` are the headers as they are once the body has been read: nothing may have changed.

export default {
  async fetch(request) {
    const before = [...request.headers];
    const bytes = new Uint8Array(await request.arrayBuffer());
    let body = "";
    for (const byte of bytes) {
      body += byte.toString(16).padStart(2, "0");
    }
    return Response.json({
      mirror: true,
      method: request.method,
      url: request.url,
      headers: before,
      again: [...request.headers].join("\n") === before.join("\n"),
      body,
    });
  },
};
