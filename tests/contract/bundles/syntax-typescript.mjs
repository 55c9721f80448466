const a: number = 1;
export default { fetch() { return new Response("ok"); } };
