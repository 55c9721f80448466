// Shows: strings of 2^29 - 24 characters, the longest there are, made flat. GET / answers 200.

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const kept = [];
      for (;;) {
        const text = `${kept.length}`.padEnd(2 ** 29 - 24, "amba");
        text.charCodeAt(2 ** 28);
        kept.push(text);
      }
    }
    return new Response("idle\n");
  },
};
