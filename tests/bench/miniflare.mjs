// Serve one worker with miniflare: node miniflare.mjs WORKER PORT
import { readFileSync } from "node:fs";
import { Miniflare } from "miniflare";

const [worker, port] = process.argv.slice(2);
const miniflare = new Miniflare({
  modules: [{ type: "ESModule", path: "worker.js", contents: readFileSync(worker, "utf8") }],
  compatibilityDate: "2026-01-01",
  host: "127.0.0.1",
  port: Number(port),
  cf: false,
});
console.log(String(await miniflare.ready));
for (const name of ["SIGINT", "SIGTERM"]) {
  process.on(name, async () => {
    await miniflare.dispose();
    process.exit(0);
  });
}
