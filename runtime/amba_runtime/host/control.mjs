// Our own worker, on a socket that tenants' requests never reach: describes the guest, gives it
// new values of its bindings, and delivers scheduled and queue events to it.

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/describe") {
      const [kind, handlers, startup, ...fault] = (await env.GUEST.describe()).split("\n");
      return Response.json({ default: kind, handlers, startup, fault: fault.join(" ") });
    }
    if (pathname === "/ping") return Response.json({});
    if (pathname === "/pending") return Response.json(await env.GUEST.pending());
    const event = await request.json();
    if (pathname === "/env") return Response.json(await env.GUEST.configure(event));
    // whose the event's requests are: the host believes no name that it did not give
    if (event.caller !== undefined) await env.GUEST.coming(event.label, event.caller);
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
