// Shows: a loop without end, in fetch, in scheduled and in queue. GET / answers 200.
// Any other path spins; so do a schedule and a batch called "spin".

function spin() {
  for (;;);
}

export default {
  fetch(request) {
    if (new URL(request.url).pathname !== "/") spin();
    return new Response("idle\n");
  },
  scheduled(controller) {
    if (controller.cron === "spin") spin();
  },
  queue(batch) {
    if (batch.queue === "spin") spin();
  },
};
