import x from "x" with { type: "json" };
export default { fetch() { return Response.json(x); } };
