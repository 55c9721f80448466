// Shows: a default export that is a function instead of an object with a handler. It is refused.

export default function fetch() {
  return new Response("never reached\n");
}
