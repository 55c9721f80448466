export default { async other() { await import("zod"); } };
