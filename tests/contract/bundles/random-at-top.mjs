const id = crypto.randomUUID();
export default { fetch() { return new Response("ok"); } };
