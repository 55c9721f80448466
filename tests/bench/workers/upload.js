// Reads a body of any size as a stream and tells how many bytes came.
export default {
  async fetch(request) {
    let bytes = 0;
    if (request.body !== null) {
      for await (const chunk of request.body) bytes += chunk.byteLength;
    }
    return new Response(String(bytes));
  },
};
