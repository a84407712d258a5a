/**
 * Two address spaces between which the owner of deprivileged code switches without a flush: a paravirtual guest's kernel and its user programs both
 * run at CPL 3, but not under the same tables. Each root has its own TLB context; flushes and INVLPG reach both. Independent of CR3 as guests write it,
 * and of PCIDs.
 */
import type { Core } from '../../state/core.ts'
import { S } from '../../state/layout.ts'
import { MODE } from '../../state/mode.ts'
import type { HardwareRoot } from '../../state/paging-state.ts'
import { derivePaging } from '../walk.ts'
import { loadPdptes } from '../pae.ts'
import { enterContext } from './contexts.ts'
import { flushAll, flushNonGlobal } from './tlb.ts'

/**
 * Sets the tables of root 0 or 1: CR3, and tables of the hypervisor to be walked instead (`hardwareRoot`). Flushes non-global translations. May be
 * called for the current root, which is root 0 until `switchRoot` has been called.
 */
export function setRoot(core: Core, which: 0 | 1, cr3: bigint, hardwareRoot?: HardwareRoot): void {
  const { paging } = core
  if (paging.roots === 1) divide(core)
  if (which === paging.root) {
    core.set64(S.cr3, cr3)
    paging.hardwareRoot = hardwareRoot
    derivePaging(core)
    loadPdptes(core)
  } else {
    paging.otherRoot.cr3 = cr3
    paging.otherRoot.hardwareRoot = hardwareRoot
  }
  flushNonGlobal(core)
}

/**
 * In place of `setRoot`: both roots have the tables of CR3, or of one hardware root, and differ in what was decoded and in whom `walkFault` answers. To switch
 * between them is then no more than to change the TLB context.
 */
export function shareTables(core: Core): void {
  divide(core)
  core.paging.sharesTables = true
}

function divide(core: Core): void {
  core.paging.roots = 2
  flushAll(core)
  enterContext(core, 0)
}

/**
 * Makes root 0 or 1 the current one; `setRoot` must have been called for it, or `shareTables`. CR3 then reads as that root's. For hooks (`trapped`, `exception`) and
 * the caller of the processor, between instructions; `pagingChanged` is not called.
 */
export function switchRoot(core: Core, which: 0 | 1): void {
  const { paging } = core
  if (which === paging.root) return
  if (!paging.sharesTables) exchange(core)
  enterContext(core, which)
  core.set32(S.mode, core.get32(S.mode) ^ MODE.secondRoot)
}

function exchange(core: Core): void {
  const { paging } = core
  const { otherRoot, hardwareRoot } = paging
  const cr3 = core.get64(S.cr3)
  core.set64(S.cr3, otherRoot.cr3)
  paging.hardwareRoot = otherRoot.hardwareRoot
  otherRoot.cr3 = cr3
  otherRoot.hardwareRoot = hardwareRoot
  derivePaging(core)
  loadPdptes(core)
}
