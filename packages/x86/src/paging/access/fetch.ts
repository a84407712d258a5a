/** Translation of instruction fetches for the block decoder. */
import type { Core } from '../../state/core.ts'
import { S, TLB } from '../../state/layout.ts'
import { ACCESS, DEVICE, FAULT, STATUS } from '../../state/paging-state.ts'
import { raisePageFault } from './slow-path.ts'
import { currentAccess, fillExecute } from '../tlb/tlb.ts'
import { walk } from '../walk.ts'
import { VECTOR } from '../../state/register-bits.ts'
import { lookUp } from '../tlb/entry.ts'


/** HPA (unsigned) of the code byte at a linear address. -1: the exit slot is set; a fault belongs to the instruction at the `rip` slot. */
export function fetchPage(core: Core, low: number, high: number): number {
  const p = core.paging
  const known = lookUp(core.i32, core.get32(S.tlb), low, high, TLB.execute)
  if (known >= 0) return known
  if (high !== 0 && (high << p.canonicalShift) >> p.canonicalShift !== high) {
    core.raise(VECTOR.GP, 0)
    return -1
  }
  const page = walk(core, low, high, (currentAccess(core) & ACCESS.user) | ACCESS.fetch)
  if (page & STATUS) {
    if (page === FAULT) raisePageFault(core, low, high)
    // Code in a device: the bus returns ones, FF FF, which is not an instruction.
    else if (page === DEVICE) core.raise(VECTOR.UD, 0)
    return -1
  }
  fillExecute(core, core.get32(S.tlb), low, high, page)
  return (page + (low & 0xfff)) >>> 0
}
