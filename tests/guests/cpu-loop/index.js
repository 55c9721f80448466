// Shows: a function that takes the processor: /spin?ms=N for a while, /spin for ever. GET / answers 200.

export default {
  fetch(request) {
    const url = new URL(request.url);
    if (url.pathname !== "/spin") {
      return new Response("idle\n");
    }
    const ms = Number(url.searchParams.get("ms") ?? Infinity);
    const start = Date.now();
    let turns = 0;
    while (Date.now() - start < ms) {
      turns += 1;
    }
    return Response.json({ turns });
  },
};
