const 𝒜 = "😀";
export default { fetch() { return new Response(𝒜); } };
