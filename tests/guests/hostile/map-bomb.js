// Shows: maps of ten million keys each. GET / answers 200.

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const kept = [];
      for (;;) {
        const map = new Map();
        kept.push(map);
        for (let n = 0; n < 1e7; n += 1) map.set(n, kept);
      }
    }
    return new Response("idle\n");
  },
};
