const a = "í €";
export default { fetch() { return new Response("ok"); } };
