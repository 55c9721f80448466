export default { fetch(request) { return new Response(require(request.url)); } };
