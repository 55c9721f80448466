export default { get fetch() { return () => new Response("ok"); } };
