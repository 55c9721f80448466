// Shows: a function that ends its engine process when /crash is asked for. GET / answers 200.
// V8 aborts, instead of throwing, when an array of 2^27 elements comes out of String.prototype.split.
// It takes 128 MiB for the text and about a quarter of a second. Seen with workerd 1.20261023.1.

export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/crash") {
      const pieces = "x".repeat(2 ** 27 + 10).split("");
      return Response.json({ survived: pieces.length });
    }
    return new Response("alive\n");
  },
};
