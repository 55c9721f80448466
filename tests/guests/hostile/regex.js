// Shows: a regular expression that backtracks for longer than anybody lives. GET / answers 200.

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      return Response.json({ matched: /^(a+)+$/.test("a".repeat(64) + "!") });
    }
    return new Response("idle\n");
  },
};
