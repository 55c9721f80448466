// Shows: a default export without any handler. It is refused.

export default {};
