// Shows: a module that throws while it loads. It is refused.

function connect() {
  throw new Error("thrown while the module loads");
}

connect();

export default {
  fetch() {
    return new Response("never reached\n");
  },
};
