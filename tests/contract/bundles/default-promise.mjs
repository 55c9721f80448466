export default Promise.resolve({ fetch() { return new Response("ok"); } });
