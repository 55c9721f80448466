function f() { f(); }
f();
export default { fetch() { return new Response("ok"); } };
