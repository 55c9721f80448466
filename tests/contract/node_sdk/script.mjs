// Every member of the table in contract part F, against the server of the environment.
// Prints one JSON object: what each call gave.

import { AmbaClient } from "./client.mjs";

const [, , baseUrl, clientKey, serverKey] = process.argv;
const told = {};

async function refusal(work) {
  try {
    await work();
    return "nothing";
  } catch (error) {
    return [error.status ?? String(error), error.code];
  }
}

const amba = await AmbaClient.configure({ apiKey: clientKey, baseUrl });
told.without_session = await refusal(() => amba.collections.find("letters"));
const me = await amba.auth.signInAnonymously();
told.user = me.id;

const first = await amba.collections.insert("letters", { title: "Dear Ann", score: 1 });
told.inserted = first;
await amba.collections.insert("letters", { title: "Dear Bob", score: 2 });
await amba.collections.insert("letters", { title: "Dear Cay", score: 3 });
const w = amba.collections.where;
told.found = await amba.collections.find("letters", {
  filter: w.and(w.gte("score", 1), w.or(w.ilike("title", "%BOB%"), w.in("score", [1, 3]))),
  order: [{ column: "score", direction: "desc" }],
  limit: 2,
  select: ["title", "score"],
});
told.next = await amba.collections.find("letters", {
  filter: w.and(w.gte("score", 1), w.or(w.ilike("title", "%BOB%"), w.in("score", [1, 3]))),
  order: [{ column: "score", direction: "desc" }],
  limit: 2,
  select: ["title", "score"],
  cursor: told.found.next_cursor,
});
told.one = await amba.collections.findOne("letters", first.id);
told.updated = await amba.collections.update("letters", first.id, { score: 10 });
told.deleted = await amba.collections.delete("letters", first.id);
told.gone = await amba.collections.findOne("letters", first.id);

amba.auth.forgetSession();
told.after_refresh = (await amba.collections.find("letters")).data.length;

told.tracked = await amba.events.track("letter_opened", { id: first.id });

const body = "a letter, as a file";
const upload = await amba.storage.presign({
  bucket: "letters",
  filename: "ann.txt",
  mimeType: "text/plain",
  sizeBytes: Buffer.byteLength(body),
  retentionDays: 30,
});
const put = await fetch(upload.upload_url, {
  method: "PUT",
  headers: Object.fromEntries(upload.upload_headers),
  body,
});
told.put = put.status;
told.asset = await amba.storage.commit(upload.upload_id, upload.asset_id);

told.push = await amba.push.register("a-device-token", "apns", "dev.example.letters");
told.said = await amba.ai.anthropic.messages.create({
  prompt_slug: "sum-up",
  variables: { title: "Dear Ann" },
  max_tokens: 50,
});

const server = await AmbaClient.configure({ apiKey: serverKey, baseUrl });
told.server_alone = await refusal(() => server.collections.find("letters"));
const scoped = server.asUser(me.id);
told.as_user = (await scoped.collections.find("letters")).data.map((row) => row.user_id);
told.as_user_insert = await scoped.collections.insert("letters", { title: "Dear Dan", score: 4 });
told.as_user_mismatch = await refusal(() =>
  scoped.collections.insert("letters", { title: "x", score: 1, user_id: "somebody-else" }),
);
told.as_nobody = await refusal(() => server.asUser("no-such-user").collections.find("letters"));

const request = {};
amba.middleware()(request, {}, () => {
  told.middleware = request.amba === amba;
});

console.log(JSON.stringify(told));
