
export default async function (request) { return new Response("ok"); }
