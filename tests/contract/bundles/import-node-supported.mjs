import { AsyncLocalStorage } from "node:async_hooks";
export default { fetch() { return new Response(typeof AsyncLocalStorage); } };
