function app() {}
app.fetch = () => new Response("ok");
export default app;
