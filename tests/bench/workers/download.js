// One MiB from memory.
const body = new Uint8Array(1024 * 1024).fill(97);

export default {
  fetch(request) {
    if (request.url.endsWith("?probe")) return new Response("ready");
    return new Response(body);
  },
};
