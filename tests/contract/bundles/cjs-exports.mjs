Object.defineProperty(exports, "__esModule", { value: true });
exports.default = { fetch() { return new Response("ok"); } };
