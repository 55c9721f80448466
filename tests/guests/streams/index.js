// Shows: one route for each way in which bytes can go in and out of a function. GET / answers 200.

import { bodies } from "./bodies.js";
import { faults } from "./faults.js";
import { logs } from "./logs.js";
import { sockets } from "./sockets.js";

// No prototype: a path such as /constructor must not name a route.
const routes = Object.assign(Object.create(null), bodies, faults, logs, sockets);

export default {
  fetch(request, env, ctx) {
    const url = new URL(request.url);
    if (url.pathname === "/") {
      return Response.json(Object.keys(routes));
    }
    const route = routes[url.pathname];
    return route === undefined
      ? new Response(`no route ${url.pathname}\n`, { status: 404 })
      : route(request, url.searchParams, { env, ctx });
  },
};
