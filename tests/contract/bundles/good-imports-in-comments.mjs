/* import "zod"; */
// import("fs"); require("x")
/** @type {import("zod").ZodType} */
export default { fetch() { return new Response("ok"); } };
