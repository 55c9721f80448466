export default { get fetch() { throw new Error("not now"); } };
