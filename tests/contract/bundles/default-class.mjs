export default class {
  fetch() { return new Response("ok"); }
}
