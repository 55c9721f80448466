class App {
  #name = "ok";
  fetch = () => new Response(this.#name);
}
export { App };
export default new App();
