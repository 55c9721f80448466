// Our own worker, on a socket that tenants' requests never reach: describes the guest and
// delivers scheduled and queue events to it.

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/describe") return Response.json(await env.GUEST.describe());
    const event = await request.json();
    if (pathname === "/scheduled") {
      return Response.json(
        await env.FN.scheduled({ cron: event.cron, scheduledTime: new Date(event.scheduledTimeMs) }),
      );
    }
    if (pathname === "/queue") {
      const messages = event.messages.map((message) => ({
        id: message.id,
        timestamp: new Date(message.timestampMs),
        attempts: message.attempts,
        body: message.body,
      }));
      return Response.json(await env.FN.queue(event.queue, messages));
    }
    return new Response(null, { status: 404 });
  },
};
