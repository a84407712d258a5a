/** Guest time. */
export { KernelClock, TSC_HZ } from './clock.ts'
export { DeterministicClock } from './deterministic-clock.ts'
export { WallClock } from './wall-clock.ts'
