function again() { Promise.resolve().then(again); }
again();
export default { fetch() { return new Response("ok"); } };
