// Shows: an honest function, asked all the while others attack. GET / answers 200.

export default {
  fetch() {
    return new Response("here\n");
  },
};
