// Shows: a key derived in 10^9 rounds, in native code that no JavaScript interrupt reaches. GET / answers 200.

export default {
  async fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const key = await crypto.subtle.importKey("raw", new Uint8Array(32), "PBKDF2", false, ["deriveBits"]);
      const how = { name: "PBKDF2", hash: "SHA-512", salt: new Uint8Array(16), iterations: 1e9 };
      return new Response(await crypto.subtle.deriveBits(how, key, 512));
    }
    return new Response("idle\n");
  },
};
