// Shows: JSON.parse of 50 MB of long numbers, again and again. GET / answers 200.

const NUMBER = "1.2345678901234567e+300,";

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      const text = "[" + NUMBER.repeat(50e6 / NUMBER.length) + "0]";
      for (;;) JSON.parse(text);
    }
    return new Response("idle\n");
  },
};
