// Shows: two files with a syntax error each, which are both reported. It is refused.

import { greeting } from "./greeting";
import { price } from "./price";

export default {
  fetch() {
    return new Response(`${greeting} ${price}`);
  },
};
