<!-- a comment of old
export default { fetch() { return new Response("ok"); } };
