// Shows: an engine that is ended by its own start, once the secret CRASH is "yes". GET / answers 200.
// In the listener form, where secrets are globals when the module is evaluated. /crash ends the
// engine that serves. How: see tests/guests/crash.

function crash() {
  return "x".repeat(2 ** 27 + 10).split("").length;
}

if (globalThis.CRASH === "yes") crash();

addEventListener("fetch", (event) => {
  const survived = new URL(event.request.url).pathname === "/crash" ? crash() : 0;
  event.respondWith(new Response(`idle ${survived}\n`));
});
