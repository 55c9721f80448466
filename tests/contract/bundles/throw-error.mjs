function connect() {
  throw new TypeError("no key");
}
connect();
export default { fetch() { return new Response("ok"); } };
