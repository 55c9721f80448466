const a = JSON.parse("{");
export default { fetch() { return new Response("ok"); } };
