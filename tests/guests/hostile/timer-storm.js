// Shows: timers of no delay that work for 2 ms and set two more each: no long turn, and no end. GET / answers 200.
// The engine fires one of them after the other, about a thousand a second, and allows 10,000.

const MOST = 5000;
let waiting = 0;

function storm() {
  waiting -= 1;
  for (let n = 0; n < 2 && waiting < MOST; n += 1) {
    waiting += 1;
    setTimeout(storm, 0);
  }
  const until = Date.now() + 2;
  while (Date.now() < until);
}

export default {
  async fetch(request) {
    if (new URL(request.url).pathname !== "/") {
      waiting = 1;
      storm();
      await new Promise(() => {});
    }
    return new Response("idle\n");
  },
};
