Object.defineProperty(Array.prototype, 0, { set() { throw new Error("set"); } });
Object.prototype.toJSON = () => { throw new Error("json"); };
Object.prototype.handlers = ["queue"];
export default { fetch() { return new Response("ok"); } };
