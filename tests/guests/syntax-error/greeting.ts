export const greeting: string = "unterminated;
