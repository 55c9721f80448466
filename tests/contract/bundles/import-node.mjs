import { readFile } from "node:fs";
export default { fetch() { return readFile(); } };
