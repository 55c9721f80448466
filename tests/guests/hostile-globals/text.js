// Shows: String, RegExp, Number and text coding built-ins that listen and lie. GET / answers 200.

import { replace, worker } from "./_watch.js";

for (const name of [
  "slice",
  "split",
  "replace",
  "replaceAll",
  "padStart",
  "charCodeAt",
  "trim",
  "startsWith",
]) {
  replace(String.prototype, name, `String.prototype.${name}`, () => "forged");
}
replace(RegExp.prototype, "exec", "RegExp.prototype.exec", () => null);
replace(RegExp.prototype, "test", "RegExp.prototype.test", () => true);
replace(TextEncoder.prototype, "encode", "TextEncoder.prototype.encode", () => new Uint8Array(0));
replace(TextDecoder.prototype, "decode", "TextDecoder.prototype.decode", () => "forged");
for (const name of ["btoa", "atob", "encodeURIComponent", "decodeURIComponent", "String"]) {
  replace(globalThis, name, name, () => "forged");
}
replace(crypto, "randomUUID", "crypto.randomUUID", () => "00000000-0000-4000-8000-000000000000");
replace(crypto, "getRandomValues", "crypto.getRandomValues", (args) => args[0]);
replace(Math, "random", "Math.random", () => 0);
replace(Date, "now", "Date.now", () => 0);

export default worker("text");
