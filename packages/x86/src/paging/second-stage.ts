/**
 * @hot Guest-physical to host-physical: the EPT walk, or the host's own map if there is no second stage; both cached. (SDM Vol. 3C, "The Extended
 * Page Table Mechanism")
 */
import type { Core } from '../state/core.ts'
import { SECOND_STAGE } from '../state/hooks.ts'
import { EPT_ENTRY, HOST_MMIO_HIGH } from '@nonroot/contracts'
import { FRAME_HIGH, frameOf } from '../state/paging-entry.ts'
import { ABANDONED, ACCESS, CACHE_MASK, DEVICE, HOST_BUS_FRAME } from '../state/paging-state.ts'

/** Exit qualification for EPT violations, beyond the access and the rights. */
const LINEAR_VALID = 0x80
const FINAL_ACCESS = 0x100

/**
 * HPA of the page | rights (EPT_ENTRY.read, write, execute; write only while it is dirty as well), or a status.
 * `access` is ACCESS.write, ACCESS.fetch or neither; `tables` when the page holds paging structures.
 */
export function guestPage(core: Core, frame: number, access: number, tables: boolean): number {
  const { cache } = core.paging
  const slot = (frame & CACHE_MASK) << 1
  if (cache[slot] === frame) {
    const entry = cache[slot + 1]!
    const need = access & ACCESS.write ? EPT_ENTRY.write : access & ACCESS.fetch ? EPT_ENTRY.execute : EPT_ENTRY.read
    if (entry & need) return entry
  }
  return findPage(core, frame, access, tables)
}

function findPage(core: Core, frame: number, access: number, tables: boolean): number {
  const entry = core.secondStage ? walkSecondStage(core, frame, access, tables) : hostPage(core, frame)
  if (entry & 0x800) return entry
  const { cache } = core.paging
  const slot = (frame & CACHE_MASK) << 1
  cache[slot] = frame
  cache[slot + 1] = entry
  return entry
}

function hostPage(core: Core, frame: number): number {
  const host = core.host.hostAddress(frame * 4096)
  if (host >= 0) return (host & -4096) | EPT_ENTRY.rights
  core.paging.frame = core.paging.hardwareRoot ? frame | HOST_BUS_FRAME : frame
  return DEVICE
}

function walkSecondStage(core: Core, frame: number, access: number, tables: boolean): number {
  const { i32 } = core
  for (;;) {
    const { root, accessedDirty } = core.secondStage!
    // With accessed and dirty flags on, an access to paging structures counts as a write. (SDM, "Accessed and Dirty Flags for EPT")
    const wanted =
      access & ACCESS.fetch
        ? EPT_ENTRY.execute
        : access & ACCESS.write
          ? EPT_ENTRY.write
          : tables && accessedDirty
            ? EPT_ENTRY.read | EPT_ENTRY.write
            : EPT_ENTRY.read
    let rights: number = EPT_ENTRY.rights
    let table = root
    let level = 4
    let answer: number = -1
    for (;;) {
      const at = (table >>> 2) + (((frame >>> ((level - 1) * 9)) & 0x1ff) << 1)
      const low = i32[at]!
      const high = i32[at + 1]!
      const granted = low & EPT_ENTRY.rights
      if (granted === 0) {
        answer = violation(core, frame, wanted, 0, tables)
        break
      }
      const leaf = level === 1 || (level <= 3 && (low & EPT_ENTRY.large) !== 0)
      if (misconfigured(core, low, high, level, leaf)) {
        answer = core.hooks!.secondStageMisconfiguration(frame * 4096)
        break
      }
      rights &= granted
      if (!leaf) {
        if (accessedDirty && !(low & EPT_ENTRY.accessed)) i32[at] = low | EPT_ENTRY.accessed
        table = low & -4096
        level--
        continue
      }
      if ((rights & wanted) !== wanted) {
        answer = violation(core, frame, wanted, rights, tables)
        break
      }
      let entry = low
      if (accessedDirty) {
        if (wanted & EPT_ENTRY.write && !(entry & EPT_ENTRY.dirty)) {
          const { hooks } = core
          if (hooks?.pageModified && !hooks.pageModified(frame * 4096)) return ABANDONED
          entry |= EPT_ENTRY.dirty
        }
        entry |= EPT_ENTRY.accessed
        if (entry !== low) i32[at] = entry
        if (!(entry & EPT_ENTRY.dirty)) rights &= ~EPT_ENTRY.write
      }
      const inner = (1 << ((level - 1) * 9)) - 1
      if (high & FRAME_HIGH) {
        core.paging.frame = (frameOf(low, high) & ~inner) | (frame & inner) | HOST_BUS_FRAME
        return DEVICE
      }
      return (low & -4096 & ~(inner << 12)) | ((frame & inner) << 12) | rights
    }
    if (answer === SECOND_STAGE.left) return ABANDONED
    if (answer === SECOND_STAGE.device) {
      core.paging.frame = frame
      return DEVICE
    }
  }
}

function violation(core: Core, frame: number, wanted: number, rights: number, tables: boolean): number {
  const qualification = wanted | (rights << 3) | LINEAR_VALID | (tables ? 0 : FINAL_ACCESS)
  return core.hooks!.secondStageViolation(frame * 4096, qualification)
}

/** (SDM Vol. 3C, "EPT Misconfigurations") */
function misconfigured(core: Core, low: number, high: number, level: number, leaf: boolean): boolean {
  if ((low & 3) === EPT_ENTRY.write) return true
  // Host memory is below 4 GiB. A leaf may lead to the host's MMIO window; any other higher address is outside the machine, and treated as reserved.
  const above = high & 0x000fffff
  if (above ? above !== HOST_MMIO_HIGH || !leaf : (low & -4096) >>> 0 >= core.u8.length) return true
  if (level === 4) return (low & 0xf8) !== 0
  if (!leaf) return (low & 0x78) !== 0
  const type = (low >>> 3) & 7
  if (type === 2 || type === 3 || type === 7) return true
  return level > 1 && (low & ((1 << (12 + (level - 1) * 9)) - 1) & -4096) !== 0
}

/** Call after any change of the second stage or of the host's map. The TLB must be flushed as well. */
export function forgetGuestPages(core: Core): void {
  core.paging.cache.fill(-1)
}
