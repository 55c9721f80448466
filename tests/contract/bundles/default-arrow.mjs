const handler = () => new Response("ok");
export default handler;
