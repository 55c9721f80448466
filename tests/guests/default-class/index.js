// Shows: a default export that is a class instead of an object with a handler. It is refused.

export default class {
  fetch() {
    return new Response("never reached\n");
  }
}
