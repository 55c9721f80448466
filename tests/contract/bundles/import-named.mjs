import { z } from "zod";
export default { fetch() { return new Response(typeof z); } };
