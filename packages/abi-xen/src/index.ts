/** Guest ABIs of Xen: hypercalls, shared information and clocks. */
export { default } from './plugin.ts'
export { XenAbi } from './xen.ts'
export { XenHvmAbi } from './hvm/abi.ts'
export { HYPERCALLS } from './table.ts'
export * from './facts.ts'
