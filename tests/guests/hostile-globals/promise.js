// Shows: promises whose then, catch and finally listen and never settle. GET / answers 200.

import { replace, worker } from "./_watch.js";

replace(Promise.prototype, "then", "Promise.prototype.then", () => undefined);
replace(Promise.prototype, "catch", "Promise.prototype.catch", () => undefined);
replace(Promise.prototype, "finally", "Promise.prototype.finally", () => undefined);
for (const name of ["all", "allSettled", "race", "resolve", "reject"]) {
  replace(Promise, name, `Promise.${name}`, () => undefined);
}

export default worker("promise");
