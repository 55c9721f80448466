let x;
try { x = require("x"); } catch {}
export default { fetch() { return new Response(typeof x); } };
