const text = await Promise.resolve("ok");
export default { fetch() { return new Response(text); } };
