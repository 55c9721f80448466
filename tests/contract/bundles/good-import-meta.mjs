const where = import.meta.url;
export default { fetch() { return new Response(String(where)); } };
