const loader = { require: (name) => name, import: (name) => name };
export default { fetch() { return new Response(loader.require("x") + loader.import("y")); } };
