// Shows: a promise that nothing settles. GET / answers 200.
// /never waits for it, /timer for a timer of an hour.

export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/never") await new Promise(() => {});
    if (pathname === "/timer") await new Promise((done) => setTimeout(done, 3600e3));
    return new Response("idle\n");
  },
};
