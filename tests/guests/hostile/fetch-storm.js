// Shows: thousands of fetches begun at once. GET / answers 200.
// /storm?to=URL&n=N begins N and says what became of them.

export default {
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/") return new Response("idle\n");
    const to = searchParams.get("to");
    const told = { ok: 0, refused: 0, said: [] };
    const one = async () => {
      try {
        const response = await fetch(to);
        await response.arrayBuffer();
        told.ok += 1;
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
