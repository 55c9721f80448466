import x from "../x.js";
export default x;
