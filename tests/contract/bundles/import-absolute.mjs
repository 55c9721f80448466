import x from "/etc/passwd";
export default x;
