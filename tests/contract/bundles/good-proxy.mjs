export default new Proxy({}, { get: (_, name) => (name === "fetch" ? () => new Response("ok") : undefined) });
