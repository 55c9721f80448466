import x from "";
export default x;
