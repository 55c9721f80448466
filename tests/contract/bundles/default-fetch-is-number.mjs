export default { fetch: 5 };
