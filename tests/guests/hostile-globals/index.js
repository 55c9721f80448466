// Shows: all the hostile variants of this folder at once. GET / answers 200.
// Each file beside this one is a variant alone, and a function when the folder itself is served.
// The order matters: a module must not need what the ones before it have replaced.

import "./json.js";
import "./headers.js";
import "./response.js";
import "./console.js";
import "./fetch.js";
import "./promise.js";
import "./error.js";
import "./text.js";
import "./object.js";
import "./iterator.js";
import "./function.js";
import { worker } from "./_watch.js";

export default worker("all");
