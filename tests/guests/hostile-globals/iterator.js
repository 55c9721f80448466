// Shows: iteration, array methods and Array.from that listen and throw. GET / answers 200.

import { replace, worker } from "./_watch.js";

replace(Array, "from", "Array.from", () => []);
replace(Array, "isArray", "Array.isArray", () => false);
for (const name of ["map", "push", "join", "slice", "shift", "forEach", "filter", "concat"]) {
  replace(Array.prototype, name, `Array.prototype.${name}`, () => []);
}
// Last: a loop above would meet it.
replace(Array.prototype, Symbol.iterator, "Array.prototype[Symbol.iterator]", () => {
  throw new Error("hostile iterator");
});

export default worker("iterator");
