import x from "some-package/deep/file.js";
export default { fetch() { return new Response(x); } };
