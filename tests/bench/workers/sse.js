// Server-sent events, each with the time it was made: `?events=20&every_ms=50`.
const encoder = new TextEncoder();

export default {
  fetch(request) {
    if (request.url.endsWith("?probe")) return new Response("ready");
    const query = new URL(request.url).searchParams;
    const every_ms = Number(query.get("every_ms"));
    let left = Number(query.get("events"));
    const body = new ReadableStream({
      async pull(controller) {
        if (left-- <= 0) return controller.close();
        await new Promise((resolve) => setTimeout(resolve, every_ms));
        controller.enqueue(encoder.encode(`data: ${Date.now()}\n\n`));
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  },
};
