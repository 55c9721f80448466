import "zod";
const x = require("x");
export default { async fetch(r) { await import(r.url); await import("./y"); } };
