/** Exact floating point: what the rest of the package may use. */
export * from './library.ts'
