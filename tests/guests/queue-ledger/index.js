// Shows: a queue handler that writes down each delivery in STORAGE before it ends, and a fetch handler that lists them. GET / answers 200.

export default {
  async queue(batch, env) {
    for (const { id, attempts, body } of batch.messages) {
      await env.STORAGE.put(`seen/${body.n}/${id}.${attempts}`, "");
    }
  },

  async fetch(request, env) {
    const keys = [];
    let cursor;
    do {
      const page = await env.STORAGE.list({ prefix: "seen/", cursor });
      keys.push(...page.objects.map((object) => object.key));
      cursor = page.truncated ? page.cursor : undefined;
    } while (cursor);
    return Response.json(keys);
  },
};
