/** CPU mode: paravirtual guests after Xen's interface, at CPL 3 on a processor without VMX. */
export { default } from './plugin.ts'
export { createParavirtMode, type ParavirtModeOptions } from './mode.ts'
export { ParavirtVcpu } from './vcpu.ts'
