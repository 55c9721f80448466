// Shows: a Response and a Request that are replaced, and Response members that lie. GET / answers 200.

import { note, replace, worker } from "./_watch.js";

const Forged = class {
  constructor(...args) {
    note("new Response", args);
    throw new Error("hostile Response");
  }
};

const RealResponse = Response;
const RealRequest = Request;
globalThis.Response = Forged;
globalThis.Request = Forged;
replace(RealResponse.prototype, "clone", "Response.prototype.clone", () => null);
replace(RealResponse, "json", "Response.json", () => null);
for (const name of ["headers", "status", "body", "webSocket", "ok"]) {
  Object.defineProperty(RealResponse.prototype, name, {
    configurable: true,
    get() {
      note(`get Response.prototype.${name}`, []);
      throw new Error(`hostile ${name}`);
    },
  });
}
// Every Response is one, and none is.
Object.defineProperty(RealResponse, Symbol.hasInstance, {
  value(...args) {
    note("instanceof Response", args);
    return false;
  },
});
for (const name of ["headers", "url", "method"]) {
  Object.defineProperty(RealRequest.prototype, name, {
    configurable: true,
    get() {
      note(`get Request.prototype.${name}`, []);
      throw new Error(`hostile ${name}`);
    },
  });
}

export default worker("response");
