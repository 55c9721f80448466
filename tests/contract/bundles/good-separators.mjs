const text = "a b c"; //  
export default { fetch() { return new Response(text); } };
