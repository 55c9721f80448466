#!/usr/bin/env node
export default { fetch() { return new Response("ok"); } };
