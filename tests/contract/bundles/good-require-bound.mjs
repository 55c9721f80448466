const modules = { 1: (module, exports, require) => { exports.two = require(2); }, 2: (module) => { module.exports = 2; } };
function load(id) { const module = { exports: {} }; modules[id](module, module.exports, load); return module.exports; }
export default { fetch() { return new Response(String(load(1).two)); } };
