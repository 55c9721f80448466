const a = "import x from 'zod'";
const b = 'require("fs")';
export default { fetch() { return new Response(a + b); } };
