export function then(resolve) { resolve(1); }
export default { fetch() { return new Response("ok"); } };
