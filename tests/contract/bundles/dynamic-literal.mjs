export default {
  async fetch() {
    const { z } = await import("zod");
    return new Response(typeof z);
  },
};
