/**
 * @hot The software TLB's filling and flushing. Entries are read by wasm code (state/layout.ts, TLB); translation is in walk.ts. A tag is invalidated
 * by its low word alone: a page address never has all its low bits set.
 */
import type { Core } from '../../state/core.ts'
import { JOURNAL_COUNT, JOURNAL_SIZE, REGION, ROOT_BANKS, S, TLB, TLB_BANK, TLB_BANK_SIZE } from '../../state/layout.ts'
import { ACCESS, PAGING, type PagingState } from '../../state/paging-state.ts'
import { forgetGuestPages } from '../second-stage.ts'
import type { SecondStage } from '../../state/paging-state.ts'
import { entryAt } from './entry.ts'

const READ = TLB.read >> 2
const WRITE = TLB.write >> 2
const EXECUTE = TLB.execute >> 2
const ADDEND = TLB.addend >> 2
const GLOBAL = TLB.global >> 2
const WORDS = TLB.entry >> 2
const BANK_WORDS = TLB_BANK_SIZE >> 2

/** How an access made through each bank is checked. */
const ACCESS_OF_BANK = [ACCESS.smap, 0, ACCESS.user] as const

/** Of the current root. */
export const bankAddress = (core: Core, bank: number): number => core.get32(S.banks) + bank * TLB_BANK_SIZE
/** Word index of the first entry of a root. */
const rootStart = (core: Core, root: number): number => (core.base + ROOT_BANKS[root]!) >>> 2
const ROOT_WORDS = TLB_BANK.count * BANK_WORDS
/** ACCESS bits of the current bank. */
export function currentAccess(core: Core): number {
  return ACCESS_OF_BANK[((core.get32(S.tlb) - core.get32(S.banks)) / TLB_BANK_SIZE) | 0]!
}

/** Assigns the entry to this page; tags that it keeps stay valid. */
function claim(core: Core, at: number, low: number, high: number, page: number): void {
  const { i32, paging } = core
  const tag = low & -4096
  const addend = (page - tag) | 0
  const flags = paging.isGlobal ? 1 : 0
  const known =
    i32[at + ADDEND] === addend &&
    i32[at + GLOBAL] === flags &&
    ((i32[at + READ] === tag && i32[at + READ + 1] === high) ||
      (i32[at + EXECUTE] === tag && i32[at + EXECUTE + 1] === high))
  if (known) return
  i32[at + READ] = -1
  i32[at + WRITE] = -1
  i32[at + EXECUTE] = -1
  i32[at + ADDEND] = addend
  i32[at + GLOBAL] = flags
  const count = core.get32(JOURNAL_COUNT)
  if (count < JOURNAL_SIZE) paging.journal[count] = at
  core.set32(JOURNAL_COUNT, count + 1)
  markLarge(paging, low, high, paging.level)
}

/** Enters the page just walked for reads, and for writes if it is dirty, writable and holds no code. */
export function fillData(core: Core, bank: number, low: number, high: number, page: number): void {
  const { i32 } = core
  const at = entryAt(bank, low)
  claim(core, at, low, high, page)
  i32[at + READ] = low & -4096
  i32[at + READ + 1] = high
  if (core.paging.writable && !core.code.hasCode(page)) {
    i32[at + WRITE] = low & -4096
    i32[at + WRITE + 1] = high
  }
  i32[(core.base + S.statistics + 16) >>> 2]!++
}

export function fillExecute(core: Core, bank: number, low: number, high: number, page: number): void {
  const { i32 } = core
  const at = entryAt(bank, low)
  claim(core, at, low, high, page)
  i32[at + EXECUTE] = low & -4096
  i32[at + EXECUTE + 1] = high
  i32[(core.base + S.statistics + 16) >>> 2]!++
}

/** Discards everything that depends on earlier translations: paging-structure caches, jump cache, links between pages. */
function nextGeneration(core: Core): void {
  core.paging.generation += 2
  core.set32(S.generation, core.paging.generation)
}

export function flushAll(core: Core): void {
  const { paging } = core
  for (let root = 0; root < paging.roots; root++) core.i32.fill(-1, rootStart(core, root), rootStart(core, root) + ROOT_WORDS)
  nextGeneration(core)
  core.set32(JOURNAL_COUNT, 0)
  paging.large.fill(0)
  paging.huge.fill(0)
}

/** Flushes all but global pages: a write to CR3. The cost is proportional to the fills since the last time. */
export function flushNonGlobal(core: Core): void {
  const { i32, paging } = core
  const count = core.get32(JOURNAL_COUNT)
  nextGeneration(core)
  core.set32(JOURNAL_COUNT, 0)
  if (count <= JOURNAL_SIZE) {
    for (let i = 0; i < count; i++) killUnlessGlobal(i32, paging.journal[i]!)
    return
  }
  for (let root = 0; root < paging.roots; root++) {
    const start = rootStart(core, root)
    for (let at = start; at < start + ROOT_WORDS; at += WORDS) killUnlessGlobal(i32, at)
  }
}

function killUnlessGlobal(i32: Int32Array, at: number): void {
  if (i32[at + GLOBAL] === 1) return
  kill(i32, at)
}
function kill(i32: Int32Array, at: number): void {
  i32[at + READ] = -1
  i32[at + WRITE] = -1
  i32[at + EXECUTE] = -1
}

/** INVLPG: flushes one page, global or not, including all parts of a large page. */
export function flushPage(core: Core, low: number, high: number): void {
  const { paging } = core
  // INVLPG drops the paging-structure caches whatever the address. (SDM Vol. 3A, "Operations that Invalidate TLBs and Paging-Structure Caches")
  nextGeneration(core)
  if (paging.huge[hugeHash(low, high)]) return flushAll(core)
  flushEntries(core, low, partsAt(paging, low, high))
}

/** Kills the entries of the `count` pages around an address that are one page to the guest; whether code was fetched from any of them. */
function flushEntries(core: Core, low: number, count: number): boolean {
  const { i32 } = core
  const start = low & -(count * 4096)
  let wasFetched = false
  for (let root = 0; root < core.paging.roots; root++) {
    for (let bank = 0; bank < TLB_BANK.count; bank++) {
      const base = core.base + ROOT_BANKS[root]! + bank * TLB_BANK_SIZE
      for (let i = 0; i < count; i++) {
        const tag = (start + i * 4096) | 0
        const at = entryAt(base, tag)
        if (i32[at + EXECUTE] === tag) wasFetched = true
        if (i32[at + READ] === tag || i32[at + EXECUTE] === tag) kill(i32, at)
      }
    }
  }
  return wasFetched
}

/**
 * A page fault discards the translation of its page, with all parts of a large page. (SDM Vol. 3A, "Details of TLB Use") Links to code are discarded
 * only if code was fetched from there.
 */
export function forgetPage(core: Core, low: number, high: number): void {
  const { paging } = core
  if (paging.huge[hugeHash(low, high)]) return forgetHuge(core, low, high)
  if (flushEntries(core, low, partsAt(paging, low, high))) nextGeneration(core)
}

/** The same where a page of 1 GiB may be. Other addresses have the same hash: only if something of this one is cached, all is flushed. */
function forgetHuge(core: Core, low: number, high: number): void {
  const { i32, paging } = core
  const isNear = (at: number): boolean => i32[at + 1] === high && i32[at]! >>> 30 === low >>> 30 && i32[at] !== -1
  for (let root = 0; root < paging.roots; root++) {
    const start = rootStart(core, root)
    for (let at = start; at < start + ROOT_WORDS; at += WORDS) if (isNear(at + READ) || isNear(at + EXECUTE)) return flushAll(core)
  }
  const { regions, generation } = paging
  const key = ((high << 11) | (low >>> 21)) >>> 9
  for (let slot = 0; slot < regions.length; slot += REGION.entry >> 2)
    if (regions[slot + 1] === generation && regions[slot]! >>> 9 === key) return nextGeneration(core)
}

/** Pages of 4 KiB that may be in the TLB as parts of the page at an address; from now on there are none. */
function partsAt({ large, kind }: PagingState, low: number, high: number): number {
  const isLegacy = kind === PAGING.bits32
  const slot = largeHash(isLegacy ? low & -0x40_0000 : low, high)
  const key = largeKey(isLegacy ? low & -0x40_0000 : low, high)
  const marked = large[slot]
  if (marked !== key && marked !== SEVERAL) return 1
  if (marked === key) large[slot] = 0
  return isLegacy ? 1024 : 512
}

const largeHash = (low: number, high: number): number => ((low >>> 21) ^ (high * 0x9d)) & 0xfff
/** Odd, so that 0 means no region and SEVERAL more than one. */
const largeKey = (low: number, high: number): number => (((high << 11) | (low >>> 21)) << 1) | 1
const SEVERAL = 2
/** Parts of a page of this level may be in the TLB from now on: INVLPG and page faults flush them all. 32-bit paging has pages of 4 MiB. */
export function markLarge({ large, huge, kind }: PagingState, low: number, high: number, level: number): void {
  if (level === 1) return
  if (level > 2) huge[hugeHash(low, high)] = 1
  const first = kind === PAGING.bits32 ? low & -0x40_0000 : low
  const slot = largeHash(first, high)
  const key = largeKey(first, high)
  large[slot] = large[slot] === 0 || large[slot] === key ? key : SEVERAL
}
const hugeHash = (low: number, high: number): number => ((low >>> 30) ^ (high << 2)) & 0x3ff

/** Code was decoded from the host page: writes to it must take the slow path from now on. */
export function dropWriteTags(core: Core, page: number): void {
  const { i32 } = core
  for (let root = 0; root < core.paging.roots; root++) {
    const start = rootStart(core, root)
    for (let at = start; at < start + ROOT_WORDS; at += WORDS) {
      const tag = i32[at + WRITE]!
      if (tag !== -1 && ((tag + i32[at + ADDEND]!) | 0) === (page | 0)) i32[at + WRITE] = -1
    }
  }
}

/** Sets or changes EPT. Undefined: the host maps guest-physical addresses. */
export function setSecondStage(core: Core, secondStage: SecondStage | undefined): void {
  core.secondStage = secondStage
  forgetSecondStage(core)
}
/** Call after a change of the second stage's tables or of the host's map (INVEPT and similar). */
export function forgetSecondStage(core: Core): void {
  forgetGuestPages(core)
  flushAll(core)
}
