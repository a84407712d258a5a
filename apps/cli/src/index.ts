/** The command as a function, for tests and for embedding. */
export { main } from './main.ts'
export type { CommandIo } from './io.ts'
