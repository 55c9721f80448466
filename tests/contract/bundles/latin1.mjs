// Ã©
export default { fetch() { return new Response("café"); } };
