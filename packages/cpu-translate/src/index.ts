/** CPU mode: full virtualisation by binary translation, on a processor without VMX. */
export { default } from './plugin.ts'
export { createTranslateMode, type TranslateModeOptions } from './mode.ts'
export { TranslateVcpu } from './vcpu.ts'
