// Shows: a console that is replaced, and whose methods throw. GET / answers 200.

import { replace, worker } from "./_watch.js";

const real = console;
for (const name of ["log", "info", "warn", "error", "debug"]) {
  replace(real, name, `console.${name}`, () => {
    throw new Error("hostile console");
  });
}
Object.freeze(real);
globalThis.console = undefined;

export default worker("console");
