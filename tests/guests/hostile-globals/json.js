// Shows: JSON.stringify and JSON.parse that lie. GET / answers 200.

import { replace, worker } from "./_watch.js";

replace(JSON, "stringify", "JSON.stringify", () => '{"forged":true}');
replace(JSON, "parse", "JSON.parse", () => ({ forged: true }));

export default worker("json");
