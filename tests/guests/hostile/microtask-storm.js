// Shows: microtasks that make microtasks, so that no turn of the loop ever ends. GET / answers 200.
// /await awaits for ever, /queue feeds queueMicrotask from itself.

const never = new Promise(() => {});

export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/await") for (;;) await null;
    if (pathname === "/queue") {
      const again = () => queueMicrotask(again);
      again();
      await never;
    }
    return new Response("idle\n");
  },
};
