const fs = require("fs");
export default { fetch() { return new Response(typeof fs); } };
