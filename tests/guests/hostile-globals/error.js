// Shows: an Error whose stack is written by the guest. GET / answers 200.

import { note, worker } from "./_watch.js";

Error.prepareStackTrace = (error, frames) => {
  note("Error.prepareStackTrace", [typeof frames]);
  return { toString: () => "forged stack" };
};
Error.stackTraceLimit = 1e6;
globalThis.Error = class extends Error {
  constructor(message, options) {
    super(message, options);
    note("new Error", [message]);
  }
};

export default worker("error");
