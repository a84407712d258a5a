/** For authors of strategies and devices: fakes of what they are handed, and one conformance suite per role. Tests only. */
export * from './clock.ts'
export * from './device-bench.ts'
export * from './device-suite.ts'
export * from './guest-memory.ts'
export * from './host-memory.ts'
export * from './metrics.ts'
export * from './paging/index.ts'
