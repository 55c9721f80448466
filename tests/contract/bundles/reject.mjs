await Promise.reject(new Error("rejected"));
export default { fetch() { return new Response("ok"); } };
