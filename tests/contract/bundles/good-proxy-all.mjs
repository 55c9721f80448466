export default new Proxy({}, { get: () => () => new Response("ok") });
