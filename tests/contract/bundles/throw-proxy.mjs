throw new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } });
export default { fetch() { return new Response("ok"); } };
