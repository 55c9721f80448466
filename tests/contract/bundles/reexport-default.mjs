export { default } from "zod";
