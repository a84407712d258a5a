/** Sets controls in a VMCS by their words. */

import type { VmxVcpu } from '../vcpu.ts'

export interface ControlBits {
  readonly pin?: number
  readonly processor?: number
  readonly secondary?: number
  readonly exit?: number
}

const FIELDS = {
  pin: 'pinControls',
  processor: 'processorControls',
  secondary: 'secondaryProcessorControls',
  exit: 'exitControls',
} as const

export function setControls({ vmcs }: VmxVcpu, bits: ControlBits, on = true): void {
  for (const word of Object.keys(bits) as (keyof typeof FIELDS)[]) {
    const field = FIELDS[word]
    const value = vmcs.read(field)
    vmcs.write(field, (on ? value | bits[word]! : value & ~bits[word]!) >>> 0)
  }
}
