// Hello world; the benchmark replaces the number to see when a save is served.
export default {
  fetch() {
    return new Response("hello v00000");
  },
};
