export default Object.freeze({ fetch() { return new Response("ok"); } });
