/** A vCPU as guest ABIs see it: registers to read and write, privilege, translation. */

import { GENERAL_REGISTERS } from '@nonroot/contracts'
import type { GuestAbiVcpu } from '@nonroot/contracts'
import { gpr, MODE, S } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'

const CODE_64 = 2

export function createAbiVcpu(
  index: number,
  core: Core,
  translate: (address: bigint) => number | undefined,
): GuestAbiVcpu {
  const registers = {} as GuestAbiVcpu['registers']
  GENERAL_REGISTERS.forEach((name, n) =>
    Object.defineProperty(registers, name, {
      enumerable: true,
      get: () => core.get64(gpr(n)),
      set: (value: bigint) => core.set64(gpr(n), value),
    }),
  )
  return {
    index,
    registers,
    get cpl() {
      return core.get32(S.cpl)
    },
    get longMode() {
      return (core.get32(S.mode) & MODE.codeSize) === CODE_64
    },
    translate,
  }
}
