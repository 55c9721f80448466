throw new Error("first\nservice fn: Uncaught Error: second\n  at /etc/passwd:1:1");
export default { fetch() { return new Response("ok"); } };
