fetch("https://example.com/").catch(() => {});
export default { fetch() { return new Response("ok"); } };
