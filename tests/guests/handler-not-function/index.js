// Shows: a default export whose only handler is not a function. It is refused.

export default { fetch: "not a function" };
