const a = <div/>;
export default { fetch() { return new Response("ok"); } };
