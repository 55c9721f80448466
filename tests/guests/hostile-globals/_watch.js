// What the hostile modules share: the built-ins as they were before the attack, and a list of
// what the replaced ones were called with. Nothing here may use a built-in that a variant replaces.

const pristine = { Response, stringify: JSON.stringify, log: console.log };
const SEEN_MAX = 100;

const seen = [];

/** Remember one call of a replaced built-in: texts as they are, other values by their type. */
export function note(what, args) {
  if (seen.length >= SEEN_MAX) {
    return;
  }
  const shown = [];
  for (let at = 0; at < args.length && at < 4; at += 1) {
    shown[at] = typeof args[at] === "string" ? args[at] : typeof args[at];
  }
  seen[seen.length] = { what, args: shown };
}

/** Replace a member by a function that notes its call and then does `instead`. */
export function replace(holder, name, what, instead) {
  Object.defineProperty(holder, name, {
    configurable: true,
    writable: true,
    value: function replaced() {
      note(what, arguments);
      return instead.call(this, arguments);
    },
  });
}

/**
 * The worker of a variant: it answers with what the replaced built-ins were called with so far.
 * workerd itself calls some of them while it prints a console line, since it prints in the guest's
 * realm. What must never be among the arguments is anything of the platform's: the header that
 * carries the log, its nonce, a token. A second request shows what the first one's end called.
 */
export function worker(variant) {
  return {
    fetch() {
      pristine.log("hostile variant", variant);
      // No `await` and no loop here: a variant may have replaced what they need.
      return new pristine.Response(pristine.stringify({ variant, seen }), {
        headers: { "content-type": "application/json", "x-variant": variant },
      });
    },
  };
}
