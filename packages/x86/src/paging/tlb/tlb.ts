/**
 * @hot The software TLB's filling and flushing. Entries are read by wasm code (state/layout.ts, TLB); translation is in walk.ts. A tag is invalidated
 * by its low word alone: a page address never has all its low bits set.
 */
import type { Core } from '../../state/core.ts'
import { CONTEXT_SIZE, CONTEXTS, JOURNAL, JOURNAL_COUNT, JOURNAL_SIZE, LOW_GLOBALS, REGION, S, TLB, TLB_BANK, TLB_BANK_SIZE } from '../../state/layout.ts'
import { ACCESS, NO_PCID, PAGING, type PagingState } from '../../state/paging-state.ts'
import { CR4 } from '../../state/register-bits.ts'
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

/** Of the current context. */
export const bankAddress = (core: Core, bank: number): number => core.get32(S.banks) + bank * TLB_BANK_SIZE
export const contextAddress = (core: Core, context: number): number => core.base + CONTEXTS + context * CONTEXT_SIZE
const CONTEXT_WORDS = TLB_BANK.count * BANK_WORDS
/** Word index of the first entry after this one's context. */
const endOf = (start: number): number => start + CONTEXT_WORDS
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
  if (flags && high >= 0) core.set32(LOW_GLOBALS, 1)
  const context = core.get32(S.banks)
  const count = i32[(context + JOURNAL_COUNT) >>> 2]!
  if (count < JOURNAL_SIZE) i32[((context + JOURNAL) >>> 2) + count] = at
  i32[(context + JOURNAL_COUNT) >>> 2] = count + 1
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

/** Discards everything of the current context that depends on earlier translations: paging-structure caches, jump cache, links between pages. */
function nextGeneration(core: Core): void {
  core.paging.generation = ++core.paging.lastGeneration
  core.set32(S.generation, core.paging.generation)
}
/** The same of links to global pages, and of all contexts. */
function nextGlobalGeneration(core: Core): void {
  core.paging.globalGeneration = ++core.paging.lastGeneration
  core.set32(S.globalGeneration, core.paging.globalGeneration)
}

/** The PCID of the current address space. (SDM Vol. 3A, "Process-Context Identifiers") */
export const currentPcid = (core: Core): number => (core.get32(S.cr4) & CR4.pcide ? core.get32(S.cr3) & 0xfff : 0)

export function flushAll(core: Core): void {
  const { paging } = core
  for (const context of paging.contexts) {
    if (!context.isEmpty) context.large.fill(0)
    context.isEmpty = true
    context.pcid = NO_PCID
  }
  paging.contexts[paging.context]!.pcid = currentPcid(core)
  clearContext(core)
  nextGlobalGeneration(core)
  core.set32(LOW_GLOBALS, 0)
  paging.huge.fill(0)
}

/** Empties the current context. */
export function clearContext(core: Core): void {
  const { paging } = core
  const context = paging.contexts[paging.context]!
  const start = core.get32(S.banks) >>> 2
  core.i32.fill(-1, start, endOf(start))
  core.i32[start + (JOURNAL_COUNT >> 2)] = 0
  context.isEmpty = false
  context.writesUnchecked = false
  nextGeneration(core)
}

/** Flushes all but global pages of the current address space, or of both roots. The cost is proportional to the fills since the last time. */
export function flushNonGlobal(core: Core): void {
  const { paging } = core
  flushContext(core, paging.context)
  if (paging.roots === 2) flushContext(core, paging.context ^ 1)
}

/** The same of one context. */
export function flushContext(core: Core, number: number): void {
  const { i32, paging } = core
  const context = paging.contexts[number]!
  if (context.isEmpty) return
  if (number === paging.context) nextGeneration(core)
  else context.generation = ++paging.lastGeneration
  const start = contextAddress(core, number) >>> 2
  const count = i32[start + (JOURNAL_COUNT >> 2)]!
  i32[start + (JOURNAL_COUNT >> 2)] = 0
  const journal = start + (JOURNAL >> 2)
  if (count <= JOURNAL_SIZE) for (let at = journal; at < journal + count; at++) killUnlessGlobal(i32, i32[at]!)
  else for (let at = start; at < endOf(start); at += WORDS) killUnlessGlobal(i32, at)
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

/** INVLPG: flushes one page of the current address space, global or not, including all parts of a large page; global pages in every context. */
export function flushPage(core: Core, low: number, high: number): void {
  const { paging } = core
  // INVLPG drops the paging-structure caches whatever the address. (SDM Vol. 3A, "Operations that Invalidate TLBs and Paging-Structure Caches")
  nextGeneration(core)
  if (paging.huge[hugeHash(low, high)]) return flushAll(core)
  flushEntries(core, paging.context, low, partsAt(paging, paging.context, low, high, true))
  flushElsewhere(core, low, high, true)
}

/** Operating systems have their global pages in the upper half. */
const mayBeGlobal = (core: Core, high: number): boolean => high < 0 || core.get32(LOW_GLOBALS) !== 0

/**
 * Flushes from the other contexts a page that was flushed from the current one: with two roots whatever it is, else where it is global. `isInvlpg`: also
 * what came of it without a tag, links and a large page in the paging-structure cache.
 */
function flushElsewhere(core: Core, low: number, high: number, isInvlpg: boolean): void {
  const { paging } = core
  const { contexts } = paging
  const bothRoots = paging.roots === 2
  const isGlobal = mayBeGlobal(core, high)
  if (isGlobal) nextGlobalGeneration(core)
  else if (!bothRoots) return
  for (let number = 0; number < contexts.length; number++) {
    const context = contexts[number]!
    if (number === paging.context || context.isEmpty) continue
    const wasFetched = flushEntries(core, number, low, partsAt(paging, number, low, high, bothRoots), !bothRoots)
    if (isInvlpg || wasFetched) context.generation = ++paging.lastGeneration
  }
}

/** Kills a context's entries of the `count` pages around an address that are one page to the guest; whether code was fetched from any of them. */
function flushEntries(core: Core, context: number, low: number, count: number, onlyGlobal = false): boolean {
  const { i32 } = core
  const start = low & -(count * 4096)
  let wasFetched = false
  for (let bank = 0; bank < TLB_BANK.count; bank++) {
    const base = contextAddress(core, context) + bank * TLB_BANK_SIZE
    for (let i = 0; i < count; i++) {
      const tag = (start + i * 4096) | 0
      const at = entryAt(base, tag)
      if (onlyGlobal && i32[at + GLOBAL] !== 1) continue
      if (i32[at + EXECUTE] === tag) wasFetched = true
      if (i32[at + READ] === tag || i32[at + EXECUTE] === tag) kill(i32, at)
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
  if (flushEntries(core, paging.context, low, partsAt(paging, paging.context, low, high, true))) nextGeneration(core)
  flushElsewhere(core, low, high, false)
}

/** The same where a page of 1 GiB may be. Other addresses have the same hash: only if something of this one is cached, all is flushed. */
function forgetHuge(core: Core, low: number, high: number): void {
  const { i32, paging } = core
  const isNear = (at: number): boolean => i32[at + 1] === high && i32[at]! >>> 30 === low >>> 30 && i32[at] !== -1
  for (let number = 0; number < paging.contexts.length; number++) {
    if (paging.contexts[number]!.isEmpty) continue
    const start = contextAddress(core, number) >>> 2
    for (let at = start; at < endOf(start); at += WORDS) if (isNear(at + READ) || isNear(at + EXECUTE)) return flushAll(core)
  }
  const { regions, generation } = paging
  const key = ((high << 11) | (low >>> 21)) >>> 9
  for (let slot = 0; slot < regions.length; slot += REGION.entry >> 2)
    if (regions[slot + 1] === generation && regions[slot]! >>> 9 === key) return nextGeneration(core)
}

/** Pages of 4 KiB that a context may have as parts of the page at an address. `flushed`: from now on it has none; else it keeps those that are not global. */
function partsAt({ contexts, kind }: PagingState, context: number, low: number, high: number, flushed: boolean): number {
  const { large } = contexts[context]!
  const isLegacy = kind === PAGING.bits32
  const slot = largeHash(isLegacy ? low & -0x40_0000 : low, high)
  const key = largeKey(isLegacy ? low & -0x40_0000 : low, high)
  const marked = large[slot]
  if (marked !== key && marked !== SEVERAL) return 1
  if (marked === key && flushed) large[slot] = 0
  return isLegacy ? 1024 : 512
}

const largeHash = (low: number, high: number): number => ((low >>> 21) ^ (high * 0x9d)) & 0xfff
/** Odd, so that 0 means no region and SEVERAL more than one. */
const largeKey = (low: number, high: number): number => (((high << 11) | (low >>> 21)) << 1) | 1
const SEVERAL = 2
/** The current context may have parts of a page of this level from now on: INVLPG and page faults flush them all. 32-bit paging has pages of 4 MiB. */
export function markLarge({ contexts, context, huge, kind }: PagingState, low: number, high: number, level: number): void {
  if (level === 1) return
  const { large } = contexts[context]!
  if (level > 2) huge[hugeHash(low, high)] = 1
  const first = kind === PAGING.bits32 ? low & -0x40_0000 : low
  const slot = largeHash(first, high)
  const key = largeKey(first, high)
  large[slot] = large[slot] === 0 || large[slot] === key ? key : SEVERAL
}
const hugeHash = (low: number, high: number): number => ((low >>> 30) ^ (high << 2)) & 0x3ff

/** Code was decoded from the host page: writes to it must take the slow path from now on. Other contexts are checked when they become current. */
export function dropWriteTags(core: Core, page: number): void {
  const { i32, paging } = core
  for (const context of paging.contexts) context.writesUnchecked = true
  paging.contexts[paging.context]!.writesUnchecked = false
  const start = core.get32(S.banks) >>> 2
  for (let at = start; at < endOf(start); at += WORDS) {
    const tag = i32[at + WRITE]!
    if (tag !== -1 && ((tag + i32[at + ADDEND]!) | 0) === (page | 0)) i32[at + WRITE] = -1
  }
}
/** The same of all pages with code, whoever made it. */
export function dropAllWriteTagsOfCode(core: Core): void {
  for (const context of core.paging.contexts) context.writesUnchecked = true
  dropWriteTagsOfCode(core)
}
/** In the current context, of all pages with code. */
export function dropWriteTagsOfCode(core: Core): void {
  const { i32, paging } = core
  paging.contexts[paging.context]!.writesUnchecked = false
  const start = core.get32(S.banks) >>> 2
  for (let at = start; at < endOf(start); at += WORDS) {
    const tag = i32[at + WRITE]!
    if (tag !== -1 && core.code.hasCode((tag + i32[at + ADDEND]!) >>> 0)) i32[at + WRITE] = -1
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
