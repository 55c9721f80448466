export default { async fetch() { return new Response("ok"); }, async scheduled() {}, async queue() {} };
