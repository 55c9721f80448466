export default { get fetch() { throw { toString() { throw 1; } }; } };
