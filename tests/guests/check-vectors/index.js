// Shows: dispatch signatures checked by crypto.subtle, a POSTed list of them at once. GET / answers 200.

export default {
  async fetch(request) {
    if (request.method !== "POST") return new Response("POST a list\n");
    const encoder = new TextEncoder();
    const verdicts = [];
    for (const { secret, canonical, mac } of await request.json()) {
      const key = await crypto.subtle.importKey(
        "raw", encoder.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"],
      );
      const bytes = Uint8Array.from(mac.match(/../g), (hex) => Number.parseInt(hex, 16));
      verdicts.push(await crypto.subtle.verify("HMAC", key, bytes, encoder.encode(canonical)));
    }
    return Response.json(verdicts);
  },
};
