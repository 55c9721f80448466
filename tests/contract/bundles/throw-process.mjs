process.exit(0);
export default { fetch() { return new Response("ok"); } };
