export * from "zod";
export default { fetch() { return new Response("ok"); } };
