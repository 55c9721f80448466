// Shows: TCP sockets of cloudflare:sockets, many at once. It is refused.
// /connect?to=HOST:PORT&n=N opens N and says how many stood.

import { connect } from "cloudflare:sockets";

export default {
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const told = { open: 0, refused: 0, said: [] };
    const one = async () => {
      try {
        const socket = connect(searchParams.get("to"));
        await socket.opened;
        told.open += 1;
      } catch (error) {
        told.refused += 1;
        const text = `${error.name}: ${error.message}`;
        if (told.said.length < 10 && !told.said.includes(text)) told.said.push(text);
      }
    };
    await Promise.all(Array.from({ length: Number(searchParams.get("n")) }, one));
    return Response.json(told);
  },
};
