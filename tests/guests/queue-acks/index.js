// Shows: a queue handler that does with each message what its body asks for, and no fetch handler. GET / answers 500.
// A body is {"do": "ack" | "retry" | "ackAll" | "retryAll" | "throw" | "reject" | "hang" | "nothing", "delay": seconds}.

export default {
  async queue(batch) {
    for (const message of batch.messages) {
      const { id, timestamp, attempts, body } = message;
      console.log(JSON.stringify({ queue: batch.queue, id, timestamp, attempts, body }));
      const options = body?.delay === undefined ? undefined : { delaySeconds: body.delay };
      switch (body?.do) {
        case "ack":
          message.ack();
          break;
        case "retry":
          message.retry(options);
          break;
        case "ackAll":
          batch.ackAll();
          break;
        case "retryAll":
          batch.retryAll(options);
          break;
        case "throw":
          throw new Error(`thrown for message ${id}`);
        case "reject":
          await Promise.reject(new Error(`rejected for message ${id}`));
          break;
        case "hang":
          await new Promise(() => {});
          break;
        default:
          break;
      }
    }
  },
};
