const app = { fetch() { return new Response("ok"); } };
app.self = app;
export default app;
