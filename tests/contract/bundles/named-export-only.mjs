export function fetch() { return new Response("ok"); }
