class App {
  fetch() { return new Response("ok"); }
}
export default new App();
