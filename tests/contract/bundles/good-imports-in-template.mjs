const a = `import "zod"; ${"x"} import("fs") \`${`require("x")`}`;
export default { fetch() { return new Response(a); } };
