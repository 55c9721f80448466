const r = require;
export default { fetch() { return new Response(r("x")); } };
