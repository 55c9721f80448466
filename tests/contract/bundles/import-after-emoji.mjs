const a = "😀é"; import "zod";
export default { fetch() { return new Response("ok"); } };
