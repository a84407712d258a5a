/** The hypervisor kernel: composes a stack. The only package that knows inversify. */
export * from './composition/index.ts'
