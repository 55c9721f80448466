// Shows: named exports beside the default one, which change nothing. GET / answers 200.
// Only kinds that workerd takes in a main module: a named constant makes it refuse the module.

export function helper(text) {
  return text.toUpperCase();
}

export class Greeter {
  greet(name) {
    return `Hello, ${name}`;
  }
}

export const admin = {
  fetch() {
    return new Response("never reached\n", { status: 500 });
  },
};

export function scheduled() {
  throw new Error("a named export is not a handler");
}

export default {
  fetch() {
    return Response.json({ greeting: helper(new Greeter().greet("Ada")) });
  },
};
