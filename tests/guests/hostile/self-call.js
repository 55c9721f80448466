// Shows: functions that call themselves and each other. GET / answers 200.
// /call?to=URL,URL&n=N asks the first address N times at once with the list turned by one, and so
// on; it answers with the worst status it got, and how many calls there were below it.

export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (!url.pathname.endsWith("/call")) return new Response("idle\n");
    const [next, ...others] = url.searchParams.get("to").split(",");
    const n = Number(url.searchParams.get("n") ?? 1);
    const target = `${next}?to=${[...others, next].join(",")}&n=${n}`;
    const told = { calls: 0, status: 200, depth: 0, code: "", thrown: 0 };
    const one = async () => {
      let answer;
      try {
        answer = await fetch(target);
      } catch {
        told.thrown += 1;
        return;
      }
      told.calls += 1;
      told.status = Math.max(told.status, answer.status);
      const text = await answer.text();
      if (answer.status === 200) {
        const below = JSON.parse(text);
        told.calls += below.calls;
        told.thrown += below.thrown;
        told.status = Math.max(told.status, below.status);
        told.depth = Math.max(told.depth, below.depth + 1);
        told.code ||= below.code;
      } else {
        told.code ||= JSON.parse(text).error.code;
      }
    };
    await Promise.all(Array.from({ length: n }, one));
    return Response.json(told);
  },
};
