// Shows: a global fetch, timers and microtasks that listen and throw. GET / answers 200.

import { replace, worker } from "./_watch.js";

for (const name of ["fetch", "setTimeout", "clearTimeout", "queueMicrotask", "structuredClone"]) {
  replace(globalThis, name, name, () => {
    throw new Error(`hostile ${name}`);
  });
}

export default worker("fetch");
