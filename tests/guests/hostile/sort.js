// Shows: a sort whose comparator lies, over an array that it grows meanwhile. GET / answers 200.

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const array = Array.from({ length: 1e6 }, (_, n) => n);
      for (;;) {
        array.sort(() => {
          array[array.length % 1e6] = Math.random();
          return Math.random() - 0.5;
        });
      }
    }
    return new Response("idle\n");
  },
};
