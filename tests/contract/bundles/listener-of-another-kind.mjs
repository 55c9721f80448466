addEventListener("unhandledrejection", () => {});
