// As many MiB as asked for (`?mib=1024`), made as they are read.
const chunk = new Uint8Array(64 * 1024).fill(97);

export default {
  fetch(request) {
    let left = 16 * Number(new URL(request.url).searchParams.get("mib") ?? "0");
    const body = new ReadableStream({
      pull(controller) {
        if (left-- > 0) controller.enqueue(chunk.slice());
        else controller.close();
      },
    });
    return new Response(body);
  },
};
