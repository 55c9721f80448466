// The guest's namespace as a value of its own: a guest that exports a function named `then`
// would otherwise decide what `await import()` gives.

export * as guest from "./fn.mjs";
