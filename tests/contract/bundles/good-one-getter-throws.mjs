export default { fetch() { return new Response("ok"); }, get queue() { throw new Error("no queue"); } };
