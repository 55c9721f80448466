const { z } = await import("zod");
export default { fetch() { return new Response("ok"); } };
