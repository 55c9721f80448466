await new Promise((done) => setTimeout(done, 1));
export default { fetch() { return new Response("ok"); } };
