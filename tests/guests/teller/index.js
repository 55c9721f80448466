// Shows: console lines at each level and an exception, for log readers. GET / answers 200.
// /say writes, /throw throws.

let requests = 0;

export default {
  fetch(request) {
    requests += 1;
    const path = new URL(request.url).pathname;
    if (path === "/throw") throw new TypeError("thrown on purpose");
    if (path === "/say") {
      console.log("a line", { n: requests }, 7);
      console.warn("a warning");
      console.error("an error");
    }
    return Response.json({ requests, mark: request.headers.get("x-mark") });
  },
};
