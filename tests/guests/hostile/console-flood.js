// Shows: a console that is written to without measure. GET / answers 200.
// /lines?n=N writes N short lines, /wide?n=N lines of 10 MB, /odd what can hardly be printed;
// /plain?n=N does the same as /lines without a console.

let sink = 0;

function boom() {
  throw new Error("thrown while it was printed");
}

export default {
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    const n = Number(searchParams.get("n"));
    if (pathname === "/plain") {
      for (let at = 0; at < n; at += 1) sink += JSON.stringify(["line", at]).length;
    }
    if (pathname === "/lines") for (let at = 0; at < n; at += 1) console.log("line", at);
    if (pathname === "/wide") {
      const wide = "w".repeat(10e6);
      for (let at = 0; at < n; at += 1) console.log(wide);
    }
    if (pathname === "/odd") {
      const bytes = String.fromCharCode(...Array.from({ length: 256 }, (_, code) => code));
      const evil = Object.defineProperty({}, "x", { get: boom, enumerable: true });
      console.log(bytes, "\ud800", new Uint8Array([0, 255]));
      console.log(evil);
      console.error(new Proxy({}, { get: boom, ownKeys: boom }));
      console.warn({ toJSON: boom }, Symbol("s"), 1n, NaN, -0);
      console.log("%s %d %o", "formats", 1);
      console.log();
    }
    return new Response("idle\n");
  },
};
