// Shows: a function with a scheduled handler and no fetch handler. GET / answers 500.
// The cron text chooses what happens: minute 58 throws, minute 59 asks for no retry.

export default {
  scheduled(controller, env, ctx) {
    const { cron, scheduledTime, type } = controller;
    console.log(JSON.stringify({ cron, scheduledTime, type, project: env.AMBA_PROJECT_ID }));
    ctx.waitUntil(Promise.resolve().then(() => console.log("after scheduled")));
    if (cron.startsWith("59 ")) {
      controller.noRetry();
    }
    if (cron.startsWith("58 ")) {
      throw new Error("scheduled failed");
    }
  },
};
