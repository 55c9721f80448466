export const a = 1, b = 2;
export class C {}
function handler() { return new Response("ok"); }
export { handler as h };
const app = { fetch: handler };
export { app as default };
