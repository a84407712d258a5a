/** Guest ABIs: KVM's paravirtual interface, or none. */
export { default } from './plugin.ts'
export * from './bare.ts'
export * from './facts.ts'
export * from './kvm-clock.ts'
export * from './kvm.ts'
export * from './options.ts'
