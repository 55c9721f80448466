// Shows: handlers that return what is no Response. GET / answers 200.
// /NAME returns that one, /later/NAME a promise of it.

const used = async () => {
  const response = new Response("read");
  await response.text();
  return response;
};
const things = {
  undefined: () => undefined,
  null: () => null,
  string: () => "text",
  number: () => 5,
  object: () => ({ status: 200, body: "text" }),
  function: () => () => new Response("text"),
  request: () => new Request("http://example.com/"),
  proxy: () => new Proxy(new Response("text"), {}),
  thenable: () => ({ then: () => {} }),
  lookalike: () => Object.create(Response.prototype),
  used,
};

export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const later = pathname.startsWith("/later/");
    const thing = things[pathname.slice(later ? 7 : 1)];
    return later ? new Promise((done) => setTimeout(() => done(thing()), 1)) : thing();
  },
};
