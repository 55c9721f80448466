import { startup } from "./prelude.mjs";
export default { fetch() { return new Response(typeof startup); } };
