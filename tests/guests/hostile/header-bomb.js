// Shows: an answer with more header than anybody reads. GET / answers 200.
// /many?n=N has N headers, /wide?n=N one of N bytes, /endless adds until it may no more.

export default {
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    const n = Number(searchParams.get("n"));
    const headers = new Headers();
    if (pathname === "/many") for (let at = 0; at < n; at += 1) headers.set(`x-h-${at}`, `${at}`);
    if (pathname === "/wide") headers.set("x-wide", "w".repeat(n));
    if (pathname === "/endless") for (let at = 0; ; at += 1) headers.set(`x-h-${at}`, "w".repeat(4096));
    return new Response("idle\n", { headers });
  },
};
