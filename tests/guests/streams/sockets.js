// WebSockets: echo, closes from either side, big messages, sub-protocols, a refusal.

const upgraded = (serve, headers) => (request, query) => {
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
    return new Response("Expected a WebSocket\n", { status: 426 });
  }
  const { 0: client, 1: server } = new WebSocketPair();
  server.accept();
  serve(server, query, request);
  return new Response(null, { status: 101, webSocket: client, headers: headers?.(request) });
};

const echo = (socket) => {
  socket.addEventListener("message", ({ data }) => socket.send(data));
  socket.addEventListener("close", ({ code, reason, wasClean }) => {
    console.log("socket closed", code, reason, wasClean);
    socket.close(code === 1005 || code === 1006 ? 1000 : code, reason);
  });
};

export const sockets = {
  /** Every message comes back; the log tells how the socket closed. */
  "/ws": upgraded(echo),

  /** The function closes with ?code= and ?reason= as soon as a message comes. */
  "/ws-close": upgraded((socket, query) => {
    socket.addEventListener("message", () => {
      socket.close(Number(query.get("code") ?? 1000), query.get("reason") ?? "");
    });
  }),

  /** The function speaks first: ?n= messages. */
  "/ws-server-first": upgraded((socket, query) => {
    for (let n = 1; n <= Number(query.get("n") ?? 1); n += 1) {
      socket.send(`server message ${n}`);
    }
    echo(socket);
  }),

  /** A message of ?bytes=, text, or binary with ?binary. */
  "/ws-big": upgraded((socket, query) => {
    const bytes = Number(query.get("bytes") ?? 1 << 20);
    socket.send(query.has("binary") ? new Uint8Array(bytes).fill(7) : "x".repeat(bytes));
    echo(socket);
  }),

  /** Takes the first sub-protocol that is offered. */
  "/ws-subprotocol": upgraded(echo, (request) => {
    const offered = request.headers.get("sec-websocket-protocol");
    return offered === null ? {} : { "sec-websocket-protocol": offered.split(",")[0].trim() };
  }),

  /** An upgrade that is refused with an ordinary answer. */
  "/ws-refuse": () => new Response("no socket for you\n", { status: 403 }),

  /** A message makes the listener throw. */
  "/ws-throw": upgraded((socket) => {
    socket.addEventListener("message", () => {
      throw new Error("thrown in a socket listener");
    });
  }),
};
