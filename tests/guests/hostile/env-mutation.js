// Shows: an env that is overwritten, emptied, frozen and booby-trapped. GET / answers 200.
// /HOW does so; every answer but GET / says what env holds by then.

function boom() {
  throw new Error("a trap in env");
}

const ways = {
  "/overwrite": (env) => {
    for (const name of Object.keys(env)) env[name] = "forged";
  },
  "/delete": (env) => {
    for (const name of Object.keys(env)) delete env[name];
  },
  "/freeze": (env) => Object.freeze(env),
  "/trap": (env) => {
    for (const name of Object.keys(env)) Object.defineProperty(env, name, { get: boom, set: boom });
  },
  "/prototype": (env) => Object.setPrototypeOf(env, new Proxy({}, { get: boom, has: boom, set: boom })),
};

export default {
  fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    ways[pathname]?.(env);
    return new Response(`${env.AMBA_PROJECT_ID}\n${Object.keys(env).sort().join(" ")}\n`);
  },
};
