// Shows: shared WebAssembly memory, and a module that waits on it atomically. GET / answers 200.
// /memory makes such a memory, /module compiles such a module.

// (module (import "m" "m" (memory 1 1 shared)) (func (export "w") (result i32)
//   i32.const 0 i32.const 0 i64.const -1 memory.atomic.wait32))
const MODULE = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
  1, 5, 1, 0x60, 0, 1, 0x7f,
  2, 9, 1, 1, 0x6d, 1, 0x6d, 2, 3, 1, 1,
  3, 2, 1, 0,
  7, 5, 1, 1, 0x77, 0, 0,
  10, 14, 1, 12, 0, 0x41, 0, 0x41, 0, 0x42, 0x7f, 0xfe, 1, 2, 0, 0x0b,
]);

function attempt(work) {
  try {
    return Response.json({ is: work() });
  } catch (error) {
    return Response.json({ refused: `${error.name}: ${error.message}` });
  }
}

export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/memory") {
      return attempt(() => {
        const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
        return Object.prototype.toString.call(memory.buffer);
      });
    }
    if (pathname === "/module") {
      return attempt(() => String(new WebAssembly.Module(MODULE)));
    }
    return new Response("idle\n");
  },
};
