/** PAE paging's four PDPTE registers, loaded with CR3. (SDM Vol. 3A, "PDPTE Registers") */
import type { Core } from '../state/core.ts'
import { S } from '../state/layout.ts'
import { ABOVE_PHYSICAL, DEVICE, PAGING, STATUS } from '../state/paging-state.ts'
import { guestPage } from './second-stage.ts'

const RESERVED_LOW = 0x1e6
const RESERVED_HIGH = ABOVE_PHYSICAL | 0xfff0_0000

/** Loads them from the table at CR3. False, with nothing changed, if a present one has reserved bits set: #GP(0). */
export function loadPdptes(core: Core): boolean {
  const p = core.paging
  if (p.kind !== PAGING.pae) return true
  const cr3 = core.get32(S.cr3)
  const entries = new Int32Array(8)
  if (p.hardwareRoot) {
    // The registers hold the hypervisor's PDPTEs; the guest's are only checked.
    core.hooks!.readTable!(cr3 & -32, entries)
    return valid(entries)
  }
  const page = guestPage(core, cr3 >>> 12, 0, true)
  if (page & STATUS && page !== DEVICE) return false
  const at = ((page & -4096) + (cr3 & 0xfe0)) >>> 2
  for (let n = 0; n < 8; n++) entries[n] = page === DEVICE ? -1 : core.i32[at + n]!
  if (!valid(entries)) return false
  p.pdptes.set(entries)
  return true
}

function valid(entries: Int32Array): boolean {
  for (let n = 0; n < 8; n += 2) {
    if (entries[n]! & 1 && (entries[n]! & RESERVED_LOW || entries[n + 1]! & RESERVED_HIGH)) return false
  }
  return true
}
