if (globalThis.never) return;
globalThis.x = 1;
