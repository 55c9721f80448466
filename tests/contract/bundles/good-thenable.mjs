export default { then(resolve) { resolve(1); }, fetch() { return new Response("ok"); } };
