// Shows: a loop without end while the module is evaluated. It is refused.

for (;;);

export default { fetch: () => new Response("never\n") };
