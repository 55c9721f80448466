import * as x from "@scope/name";
export default { fetch() { return new Response(typeof x); } };
