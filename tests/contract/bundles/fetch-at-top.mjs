const a = await fetch("https://example.com/");
export default { fetch() { return new Response("ok"); } };
