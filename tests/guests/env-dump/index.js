// Shows: everything a function finds in its env: names, kinds and text values. GET / answers 200.

export default {
  fetch(_request, env, ctx) {
    const names = Object.keys(env).sort();
    return Response.json({
      names,
      kinds: Object.fromEntries(names.map((name) => [name, typeof env[name]])),
      values: Object.fromEntries(
        names.flatMap((name) => (typeof env[name] === "string" ? [[name, env[name]]] : [])),
      ),
      ctx: {
        waitUntil: typeof ctx.waitUntil,
        passThroughOnException: typeof ctx.passThroughOnException,
      },
      props: ctx.props ?? null,
    });
  },
};
