// Shows: a leak of one MB per request to /leak. GET / answers 200.

const kept = [];

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      kept.push(new Uint8Array(1024 * 1024).fill(kept.length + 1));
    }
    return new Response(`${kept.length}\n`);
  },
};
