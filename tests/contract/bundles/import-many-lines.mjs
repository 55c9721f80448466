import {
  a,
  b,
} from "zod";
import c from "jose";
export default { fetch() { return new Response(a + b + c); } };
