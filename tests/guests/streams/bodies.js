// Bodies: read whole, in part, late or not at all; written at once, slowly, without end.

// Byte i of a download is i % 251, so that a reader can check any range. A chunk is a multiple of 251.
const PERIOD = 251;
const CHUNK = Uint8Array.from({ length: PERIOD * 256 }, (_, at) => at % PERIOD);

const encoder = new TextEncoder();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const number = (query, name, otherwise) => Number(query.get(name) ?? otherwise);

export const bodies = {
  /** The request body, piped back, with its content type. */
  "/echo": (request) =>
    new Response(request.body, {
      headers: {
        "content-type": request.headers.get("content-type") ?? "application/octet-stream",
      },
    }),

  /** Read the body as a stream; ?ms= waits before each read, ?wait= before the first. */
  async "/count"(request, query) {
    const ms = number(query, "ms", 0);
    await sleep(number(query, "wait", 0));
    let bytes = 0;
    let chunks = 0;
    for await (const chunk of request.body ?? []) {
      bytes += chunk.byteLength;
      chunks += 1;
      if (ms > 0) {
        await sleep(ms);
      }
    }
    return Response.json({ bytes, chunks });
  },

  /** SHA-256 of the body, read as a stream. */
  async "/digest"(request) {
    const sink = new crypto.DigestStream("SHA-256");
    await (request.body ?? new Blob([]).stream()).pipeTo(sink);
    const hex = Array.from(new Uint8Array(await sink.digest), (b) =>
      b.toString(16).padStart(2, "0"),
    );
    return new Response(hex.join(""));
  },

  /** Read the whole body as text before the answer starts. */
  "/text": async (request) => Response.json({ text: await request.text() }),

  /** Answer at once, and never look at the body. */
  "/ignore-body": () => new Response("not read\n"),

  /** Read one chunk, then answer and drop the rest. */
  async "/read-one-chunk"(request) {
    const reader = request.body?.getReader();
    const first = await reader?.read();
    await reader?.cancel();
    return Response.json({ bytes: first?.value?.byteLength ?? 0 });
  },

  /** ?bytes=N in chunks, made as they are asked for; ?length sends a Content-Length. */
  "/download"(_request, query) {
    let left = number(query, "bytes", 1024);
    const headers = { "content-type": "application/octet-stream" };
    const source = new ReadableStream(
      {
        pull(controller) {
          if (left === 0) {
            controller.close();
            return;
          }
          const size = Math.min(left, CHUNK.length);
          left -= size;
          controller.enqueue(CHUNK.slice(0, size));
        },
        cancel() {
          console.log("download cancelled with", left, "bytes left");
        },
      },
      { highWaterMark: 0 },
    );
    if (!query.has("length")) {
      return new Response(source, { headers });
    }
    return new Response(source.pipeThrough(new FixedLengthStream(left)), { headers });
  },

  /** ?chunks=N short chunks, ?ms=M apart. */
  "/slow": (_request, query) =>
    new Response(paced((n) => `chunk ${n}\n`, number(query, "chunks", 5), number(query, "ms", 50))),

  /** ?n=N events at once. */
  "/sse": (_request, query) =>
    events(paced((n) => `id: ${n}\ndata: event ${n}\n\n`, number(query, "n", 3), 0)),

  /** An event every ?ms=; the log tells when the reader has gone. */
  "/sse-forever": (_request, query) =>
    events(paced((n) => `id: ${n}\ndata: event ${n}\n\n`, Infinity, number(query, "ms", 20))),

  /** GET has 1,000 bytes; HEAD has the same headers and none. */
  "/head": (request) =>
    new Response("x".repeat(1000), {
      headers: { "content-type": "text/plain", "x-seen-method": request.method },
    }),

  /** ?code= with no body where HTTP has none; ?text= is the reason phrase. */
  "/status"(_request, query) {
    const status = number(query, "code", 200);
    const body = [101, 204, 205, 304].includes(status) ? null : `status ${status}\n`;
    return new Response(body, { status, statusText: query.get("text") ?? "" });
  },

  /** An answer with no body at all, and with an empty one. */
  "/null-body": () => new Response(null),
  "/empty-body": () => new Response(""),

  /** Every header that came in, in the order and spelling the runtime gives. */
  "/headers": (request) =>
    Response.json({ method: request.method, url: request.url, headers: [...request.headers] }),

  /** Two cookies must stay two header lines. */
  "/set-cookie"() {
    const headers = new Headers();
    headers.append("set-cookie", "a=1; Path=/");
    headers.append("set-cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT");
    return new Response("cookies\n", { headers });
  },

  /** ?count= headers of ?bytes= each. */
  "/many-headers"(_request, query) {
    const headers = new Headers();
    const value = "v".repeat(number(query, "bytes", 10));
    for (let n = 0; n < number(query, "count", 10); n += 1) {
      headers.set(`x-many-${n}`, value);
    }
    return new Response("many\n", { headers });
  },

  /** Hop-by-hop and reserved names that a function has no say over. */
  "/reserved-headers": () =>
    new Response("reserved\n", {
      headers: {
        "keep-alive": "timeout=999",
        "proxy-authenticate": "Basic",
        "x-amba-user-id": "u_forged",
        "x-kept": "yes",
      },
    }),

  /** ?to= is the target. */
  "/redirect": (_request, query) =>
    new Response(null, {
      status: number(query, "code", 302),
      headers: { location: query.get("to") ?? "/" },
    }),

  /** A subrequest to ?url=, with the method, the headers named in ?pass= and the body passed through. */
  async "/fetch"(request, query) {
    const headers = new Headers();
    for (const name of query.getAll("pass")) {
      headers.set(name, request.headers.get(name) ?? "");
    }
    const { method, body } = request;
    try {
      const upstream = await fetch(query.get("url"), { method, body, headers, redirect: "manual" });
      return new Response(upstream.body, upstream);
    } catch (error) {
      return Response.json({ failed: String(error) }, { status: 599 });
    }
  },

  /** ?n= subrequests to ?url=, all at once; the answer lists their statuses. */
  async "/fetch-many"(_request, query) {
    const url = query.get("url");
    const one = async () => {
      try {
        const upstream = await fetch(url);
        await upstream.arrayBuffer();
        return upstream.status;
      } catch (error) {
        return String(error);
      }
    };
    return Response.json(await Promise.all(Array.from({ length: number(query, "n", 2) }, one)));
  },
};

function paced(text, count, ms) {
  let sent = 0;
  return new ReadableStream(
    {
      async pull(controller) {
        if (sent >= count) {
          controller.close();
          return;
        }
        if (sent > 0 && ms > 0) {
          await sleep(ms);
        }
        sent += 1;
        controller.enqueue(encoder.encode(text(sent)));
      },
      cancel() {
        console.log("stream cancelled after", sent);
      },
    },
    { highWaterMark: 0 },
  );
}

function events(stream) {
  return new Response(stream, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache" },
  });
}
