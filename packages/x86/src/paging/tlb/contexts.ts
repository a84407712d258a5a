/**
 * TLB contexts: the translations of several address spaces are kept beside one another, so that a write to CR3 with bit 63 set finds those of its PCID
 * again. Each context has its own banks and its own generation (jump cache, links between pages, paging-structure cache). Links to global pages
 * hold in all of them. (SDM Vol. 3A, "Caching Translation Information")
 */
import type { Core } from '../../state/core.ts'
import { S } from '../../state/layout.ts'
import { NO_PCID, type PagingState } from '../../state/paging-state.ts'
import { clearContext, contextAddress, currentPcid, dropWriteTagsOfCode, flushContext, flushNonGlobal } from './tlb.ts'

/** Whether each PCID has a context: not where the tables are the hypervisor's, and not those that CR3 names. */
export const hasContexts = ({ roots, hardwareRoot }: PagingState): boolean => roots === 1 && !hardwareRoot

/** After a load of CR3: the context of its PCID becomes the current one. `keeps`: the translations of this PCID stay valid, if there are any. */
export function loadContext(core: Core, keeps: boolean): void {
  const { paging } = core
  if (!hasContexts(paging)) return keeps ? undefined : flushNonGlobal(core)
  const pcid = currentPcid(core)
  const known = contextOf(paging, pcid)
  const next = known < 0 ? freeContext(paging) : known
  paging.contexts[next]!.pcid = pcid
  enterContext(core, next)
  if (known < 0 || !keeps) flushNonGlobal(core)
}

export function enterContext(core: Core, next: number): void {
  const { paging } = core
  if (next === paging.context) return
  paging.contexts[paging.context]!.generation = paging.generation
  paging.context = next
  const bank = core.get32(S.tlb) - core.get32(S.banks)
  core.set32(S.banks, contextAddress(core, next))
  core.set32(S.tlb, core.get32(S.banks) + bank)
  const { isEmpty, generation, writesUnchecked } = paging.contexts[next]!
  if (isEmpty) return clearContext(core)
  paging.generation = generation
  core.set32(S.generation, generation)
  if (writesUnchecked) dropWriteTagsOfCode(core)
}

/** Flushes a PCID, except global pages. */
export function flushPcid(core: Core, pcid: number): void {
  const number = contextOf(core.paging, pcid)
  if (number >= 0) flushContext(core, number)
}
/** Flushes all PCIDs, except global pages. */
export function flushAllPcids(core: Core): void {
  for (let number = 0; number < core.paging.contexts.length; number++) flushContext(core, number)
}

function contextOf({ contexts }: PagingState, pcid: number): number {
  for (let number = 0; number < contexts.length; number++) if (contexts[number]!.pcid === pcid) return number
  return -1
}
/** One without a PCID, or else the next in turn. */
function freeContext(paging: PagingState): number {
  const free = contextOf(paging, NO_PCID)
  if (free >= 0) return free
  do paging.victim = (paging.victim + 1) % paging.contexts.length
  while (paging.victim === paging.context)
  return paging.victim
}
