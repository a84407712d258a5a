/** What of the processor's model a paravirtual guest sees. (Xen, "public/arch-x86/cpufeatureset.h": features not marked for PV) */

const bits = (...numbers: number[]): number => ~numbers.reduce((all, n) => all | (1 << n), 0)

interface Hidden {
  readonly leaf: number
  readonly subleaf: number
  readonly register: 0 | 1 | 2 | 3
  readonly keep: number
  readonly what: string
}
const HIDDEN: readonly Hidden[] = [
  { leaf: 1, subleaf: 0, register: 3, keep: bits(1, 3, 12, 13, 17), what: 'VME PSE MTRR PGE PSE-36' },
  { leaf: 1, subleaf: 0, register: 2, keep: bits(3, 5, 17, 21, 24), what: 'MONITOR VMX PCID x2APIC TSC-deadline' },
  { leaf: 7, subleaf: 0, register: 1, keep: bits(0, 1, 7, 10, 20), what: 'FSGSBASE TSC_ADJUST SMEP INVPCID SMAP' },
  { leaf: 7, subleaf: 0, register: 2, keep: bits(2, 3, 4, 16), what: 'UMIP PKU OSPKE LA57' },
  { leaf: 0xd, subleaf: 1, register: 0, keep: bits(3), what: 'XSAVES' },
  { leaf: 0x8000_0001, subleaf: 0, register: 3, keep: bits(26), what: '1 GiB pages' },
]

export function applyPolicy(leaf: number, subleaf: number, result: Uint32Array): void {
  for (const hidden of HIDDEN) {
    if (hidden.leaf === leaf && hidden.subleaf === subleaf) result[hidden.register]! &= hidden.keep
  }
}
