// Shows: an array on the heap that grows without end. GET / answers 200.

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const kept = [];
      for (;;) kept.push({ n: kept.length, text: `entry ${kept.length}`, more: [1, 2, 3, 4] });
    }
    return new Response("idle\n");
  },
};
