const x = require("x");
addEventListener("fetch", (event) => event.respondWith(new Response(x)));
