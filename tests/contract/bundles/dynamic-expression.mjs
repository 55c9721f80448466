export default {
  async fetch(request) {
    return new Response(await import(request.url));
  },
};
