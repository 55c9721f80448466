// Shows: a power of a BigInt with a hundred million binary digits, then its digits in base ten. GET / answers 200.

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      return new Response(String((3n ** (2n ** 26n)).toString().length));
    }
    return new Response("idle\n");
  },
};
