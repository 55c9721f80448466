addEventListener("scheduled", (event) => event.waitUntil(Promise.resolve()));
