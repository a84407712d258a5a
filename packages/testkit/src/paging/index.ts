export * from './guest-tables.ts'
export * from './reference-walk.ts'
export * from './suite.ts'
export { TestVcpu, type AccessKind, type AccessResult } from './test-vcpu.ts'
