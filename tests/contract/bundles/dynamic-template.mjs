export default { async fetch() { return new Response(await import(`zod`)); } };
