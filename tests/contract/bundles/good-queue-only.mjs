export default { queue(batch) { batch.ackAll(); } };
