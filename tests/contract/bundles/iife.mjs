var App = (() => {
  return { fetch() { return new Response("ok"); } };
})();
