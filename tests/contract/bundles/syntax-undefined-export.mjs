export { q };
export default { fetch() { return new Response("ok"); } };
