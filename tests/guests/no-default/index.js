// Shows: a module with a handler but no default export. It is refused.

export function fetch() {
  return new Response("never reached\n");
}
