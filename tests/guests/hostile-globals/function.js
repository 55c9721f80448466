// Shows: Function.prototype.call, apply and bind that listen and do nothing. GET / answers 200.

import { note, worker } from "./_watch.js";

const defineProperty = Object.defineProperty;
const names = ["call", "apply", "bind"];
// Not with replace(), which itself needs call; by index, since index.js replaces iteration before.
for (let at = 0; at < names.length; at += 1) {
  defineProperty(Function.prototype, names[at], {
    configurable: true,
    value: function replaced() {
      note(`Function.prototype.${names[at]}`, arguments);
      return undefined;
    },
  });
}

export default worker("function");
