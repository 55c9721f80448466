import fs from "fs";
export default { fetch() { return fs; } };
