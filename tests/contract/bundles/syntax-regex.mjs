export default { fetch() {} };
const a = /(/;
