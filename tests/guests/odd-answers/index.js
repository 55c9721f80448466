// Shows: answers that HTTP has no words for, by `?status=`, `?value=`, `?name=`. GET / answers 200.
// What the runtime refuses to make is an exception, and a 500.

const number = (text) => (text === "NaN" ? Number.NaN : text.startsWith('"') ? text : Number(text));
const decode = (hex) => hex.replace(/../g, (two) => String.fromCharCode(Number.parseInt(two, 16)));

const kinds = {
  status: (value) => new Response(null, { status: number(value) }),
  "status-body": (value) => new Response("body", { status: number(value) }),
  reason: (value) => new Response("x", { statusText: decode(value) }),
  value: (value) => new Response("x", { headers: { "x-odd": decode(value) } }),
  name: (value) => new Response("x", { headers: { [decode(value)]: "odd" } }),
  many(value) {
    const headers = new Headers();
    for (let n = 0; n < Number(value); n += 1) {
      headers.set(`x-${n}`, "v");
    }
    return new Response("many", { headers });
  },
  large: (value) => new Response("x", { headers: { "x-large": "v".repeat(Number(value)) } }),
  cookies(value) {
    const headers = new Headers();
    for (let n = 0; n < Number(value); n += 1) {
      headers.append("set-cookie", `c${n}=v`);
    }
    return new Response("cookies", { headers });
  },
  framing(value) {
    const [name, text] = decode(value).split(": ");
    return new Response("0123456789", { headers: { [name]: text } });
  },
  "framing-stream"(value) {
    const [name, text] = decode(value).split(": ");
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    writer.write(new TextEncoder().encode("0123456789")).then(() => writer.close(), () => {});
    return new Response(readable, { headers: { [name]: text } });
  },
  fixed(value) {
    const { readable, writable } = new FixedLengthStream(Number(value));
    const writer = writable.getWriter();
    writer.write(new TextEncoder().encode("0123456789")).then(() => writer.close()).catch(() => {});
    return new Response(readable);
  },
};

export default {
  fetch(request) {
    const query = new URL(request.url).searchParams;
    const kind = query.get("kind");
    return kind === null ? new Response("odd\n") : kinds[kind](query.get("value"));
  },
};
