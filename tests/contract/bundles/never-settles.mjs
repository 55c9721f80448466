await new Promise(() => {});
export default { fetch() { return new Response("ok"); } };
