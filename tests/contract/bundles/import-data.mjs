import "data:text/javascript,globalThis.x=1";
export default { fetch() { return new Response("ok"); } };
