export default Object.assign(Object.create(null), { fetch() { return new Response("ok"); } });
