throw "text ".repeat(100000);
export default { fetch() { return new Response("ok"); } };
