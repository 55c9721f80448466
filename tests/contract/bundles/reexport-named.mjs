export { z as y } from "./z";
export default { fetch() { return new Response("ok"); } };
