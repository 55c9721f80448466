// Shows: Object helpers that lie, and a polluted Object.prototype. GET / answers 200.

import { note, replace, worker } from "./_watch.js";

const defineProperty = Object.defineProperty;
// What a careless options object or record would inherit.
const polluted = ["level", "message", "outcome", "logs", "exceptions", "method", "signal", "cf"];
for (let at = 0; at < polluted.length; at += 1) {
  const name = polluted[at];
  defineProperty(Object.prototype, name, {
    configurable: true,
    get() {
      note(`get Object.prototype.${name}`, []);
      return undefined;
    },
    set(value) {
      note(`set Object.prototype.${name}`, [value]);
    },
  });
}
for (const name of ["keys", "entries", "assign", "create", "freeze", "getOwnPropertyNames"]) {
  replace(Object, name, `Object.${name}`, () => []);
}
replace(Reflect, "ownKeys", "Reflect.ownKeys", () => []);
replace(Reflect, "apply", "Reflect.apply", () => undefined);

export default worker("object");
