/** Exact floating point: the interface for the rest of the package. */
export * from './library.ts'
