const a = /import("zod")|require\("x"\)/;
export default { fetch() { return new Response(String(a)); } };
