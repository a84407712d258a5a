/** The consequences of changes to CR0, CR3, CR4 or EFER: the walker's switches, PDPTEs, segment bounds, flushes, the mode key. */
import type { Core } from '../state/core.ts'
import { loadPdptes } from '../paging/pae.ts'
import { loadContext } from '../paging/tlb/contexts.ts'
import { flushAll } from '../paging/tlb/tlb.ts'
import { updatePaging } from '../paging/walk.ts'
import { PAGING } from '../state/paging-state.ts'
import { CR0, CR4, EFER } from '../state/register-bits.ts'
import { setAllBounds } from '../state/segments.ts'
import { updateMode } from './update-mode.ts'

/** Changed bits of each register. */
export interface ChangedControls {
  readonly cr0?: number
  readonly cr4?: number
  readonly efer?: number
  /** `load`: written, perhaps unchanged. `keep`: the same, and translations of its PCID are kept. `unchecked`: PDPTEs are not checked. */
  readonly cr3?: 'load' | 'keep' | 'unchecked'
}

/** After a complete state has been loaded. */
export const ALL_CONTROLS: ChangedControls = { cr0: -1, cr4: -1, efer: -1, cr3: 'unchecked' }

/** (SDM Vol. 3A, "PDPTE Registers") */
const LOADS_PDPTES = { cr0: CR0.pg | CR0.cd | CR0.nw, cr4: CR4.pae | CR4.pse | CR4.pge | CR4.smep } as const
/** (SDM Vol. 3A, "Operations that Invalidate TLBs and Paging-Structure Caches") */
const FLUSHES = {
  cr0: CR0.pg | CR0.wp | CR0.pe,
  cr4: CR4.pse | CR4.pae | CR4.pge | CR4.pcide | CR4.smep | CR4.smap,
  efer: EFER.nxe,
} as const

/** False: PDPTEs have reserved bits set. Only the walker's switches have changed then; the caller puts the registers back and calls `updatePaging`. */
export function applyControls(core: Core, { cr0 = 0, cr4 = 0, efer = 0, cr3 }: ChangedControls): boolean {
  updatePaging(core)
  const loadsPdptes = cr3 !== undefined || cr0 & LOADS_PDPTES.cr0 || cr4 & LOADS_PDPTES.cr4
  if (core.paging.kind === PAGING.pae && loadsPdptes && !loadPdptes(core) && cr3 !== 'unchecked') return false
  if (cr0 & CR0.pe) setAllBounds(core)
  if (cr0 & FLUSHES.cr0 || cr4 & FLUSHES.cr4 || efer & FLUSHES.efer) flushAll(core)
  else if (cr3 !== undefined) loadContext(core, cr3 === 'keep')
  if (cr0 || cr4 || efer) updateMode(core)
  return true
}
