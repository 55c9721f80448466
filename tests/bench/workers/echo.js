// JSON in, the same JSON out, parsed and printed on the way.
export default {
  async fetch(request) {
    if (request.method === "GET") return new Response("ready");
    return Response.json(await request.json());
  },
};
