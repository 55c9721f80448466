module.exports = { fetch() { return new Response("ok"); } };
