// Shows: Headers whose methods listen, lie and throw. GET / answers 200.

import { replace, worker } from "./_watch.js";

for (const name of ["get", "set", "append", "delete", "has", "entries", "forEach"]) {
  replace(Headers.prototype, name, `Headers.prototype.${name}`, () => "forged");
}
replace(Headers.prototype, Symbol.iterator, "Headers.prototype[Symbol.iterator]", () => {
  throw new Error("hostile iterator");
});

export default worker("headers");
