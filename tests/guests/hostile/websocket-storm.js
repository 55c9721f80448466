// Shows: thousands of WebSockets opened from a function. GET / answers 200.
// /storm?to=URL&n=N opens N and says how many stood.

export default {
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const told = { open: 0, refused: 0, said: [] };
    const one = async () => {
      try {
        const response = await fetch(searchParams.get("to"), { headers: { Upgrade: "websocket" } });
        if (response.webSocket) {
          told.open += 1;
          return;
        }
        await response.arrayBuffer();
        throw new Error(`no socket, but status ${response.status}`);
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
