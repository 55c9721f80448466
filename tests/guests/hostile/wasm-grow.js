// Shows: WebAssembly memory that is grown and written full without end. GET / answers 200.

const PAGE = 65536;

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const memories = [];
      for (;;) {
        const memory = new WebAssembly.Memory({ initial: 1 });
        memories.push(memory);
        try {
          for (;;) {
            const from = memory.grow(64) * PAGE;
            new Uint8Array(memory.buffer, from).fill(1);
          }
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
        }
      }
    }
    return new Response("idle\n");
  },
};
