// Shows: built-ins replaced or inherited by all, one variant per deployment. GET / answers 200.
// VARIANT is "where|name|how": `where` is a path below globalThis, `how` one of get, set, value,
// throw, wrong, then. /report says what the guest sees of itself, taken before the attack.

const VARIANT = "Object.prototype|none|value";

const pristine = { Response, stringify: JSON.stringify, get: Headers.prototype.get };
const { apply, defineProperty } = Reflect;
const [where, name, how] = VARIANT.split("|");
const key = name.startsWith("@@") ? Symbol[name.slice(2)] : name;
let holder = globalThis;
for (const part of where.split(".")) if (part !== "globalThis") holder = holder[part];
const original = holder[key];

function boom() {
  throw new Error("a polluted built-in was used");
}

const ways = {
  get: { get: () => "forged" },
  throw: { get: boom, set: boom },
  set: { get: () => undefined, set: boom },
  value: { value: "forged", writable: true },
  wrong: { value: () => "forged", writable: true },
  fail: { value: boom, writable: true },
  then: { value: (resolve) => resolve("forged"), writable: true },
  pass: {
    value: function passed(...args) {
      return new.target ? Reflect.construct(original, args) : apply(original, this, args);
    },
    writable: true,
  },
};
defineProperty(holder, key, { configurable: true, ...ways[how] });

export default {
  async fetch(request, env) {
    const headers = request.headers;
    const told = [
      apply(pristine.get, headers, ["x-amba-project-id"]),
      env.AMBA_PROJECT_ID,
      apply(pristine.get, headers, ["x-amba-function-name"]),
      apply(pristine.get, headers, ["x-amba-user-id"]),
    ];
    let text = "";
    for (let at = 0; at < 4; at += 1) text += `${told[at]}\n`;
    // /store puts an object by the plain binding: whose bucket it lands in is the host's to say
    if (request.url.endsWith("/store")) await env.STORAGE.put("mark", text);
    console.log("a line of a polluted realm");
    env.AMBA_PROJECT_ID = "forged";
    return new pristine.Response(text);
  },
};
