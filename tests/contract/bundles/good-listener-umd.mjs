(function (root, factory) {
  if (typeof exports === "object" && typeof module !== "undefined") factory(exports);
  else factory((root.lib = {}));
})(globalThis, (lib) => { lib.hello = () => "hello"; });
addEventListener("fetch", (event) => event.respondWith(new Response(lib.hello())));
