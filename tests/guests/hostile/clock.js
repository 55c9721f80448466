// Shows: how finely a function can measure time. GET / answers 200.
// /steps says the smallest steps seen of each clock, and how far it went during pure work.

function steps(now) {
  const first = now();
  let last = first;
  let least = Infinity;
  let moved = 0;
  for (let n = 0; n < 1e6 && moved < 50; n += 1) {
    const at = now();
    if (at !== last) {
      least = Math.min(least, at - last);
      last = at;
      moved += 1;
    }
  }
  return { least_ms: moved ? least : null, moved_ms: last - first };
}

export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/") return new Response("idle\n");
    return Response.json({
      date: steps(() => Date.now()),
      performance: steps(() => performance.now()),
    });
  },
};
