/**
 * TLB fills without JavaScript. Most misses need only a present entry with its flags set, on a page that the second stage's cache has: these are
 * filled in wasm, exactly as walk.ts and tlb.ts would. All others are left to them.
 */
import type { Core } from '../../state/core.ts'
import { IrBuilder } from '../../ir/builder.ts'
import type { Value } from '../../ir/nodes.ts'
import type { Built, Signature } from '../../ir/function.ts'
import {
  FRAME, FRAMES, JOURNAL, JOURNAL_COUNT, JOURNAL_SIZE, LOW_GLOBALS, QUICK_FILL, REGION, REGIONS, RESERVED_HIGH, S, TLB, TLB_BANK, TLB_BANK_SIZE,
} from '../../state/layout.ts'
import { EPT_ENTRY, PAGE_ENTRY } from '@nonroot/contracts'
import { FRAME_HIGH } from '../../state/paging-entry.ts'
import { ACCESS, CACHE_MASK, PAGING, REGION_MASK } from '../../state/paging-state.ts'
import { tlbEntry } from './entry.ts'

/** Bits of the QUICK_FILL word. */
const QUICK = { on: 1, global: 2 } as const

/** The conditions for quick fills: 4-level paging, no feature that checks single accesses, and a map of the pages with code. */
export function quickFillOf(core: Core): number {
  const { kind, watches, alignmentCheck, global, hardwareRoot, pagingOff } = core.paging
  if (kind !== PAGING.level4 || watches || alignmentCheck || (hardwareRoot && pagingOff) || !core.get32(S.codeHolders)) return 0
  return QUICK.on | (global ? QUICK.global : 0)
}

/** (cpu, linear, access: one of read, write, fetch, bytes) returns the HPA, or 0 if nothing was done. */
export const QUICK_FILL_TYPE: Signature = { params: ['i32', 'i64', 'i32', 'i32'], results: ['i32'], isRare: true }

export function quickFillBody(): Built {
  const b = new IrBuilder()
  const cpu = b.param(0)
  const linear = b.param(1, 'i64')
  const access = b.param(2)
  const bytes = b.param(3)
  const load = (address: Value, offset: number): Value => b.rawLoad('i32', address, offset, 32)
  const unless = (condition: Value): void => b.ifUnlikely(b.eqz(condition), () => b.return(b.i32(0)))
  const low = b.wrap(linear)
  const quick = b.slot(QUICK_FILL, 'i32')
  unless(quick)
  unless(b.eq(b.shrS(b.shl(linear, 16), 16), linear))
  unless(b.leU(b.add(b.and(low, 0xfff), bytes), 4096))

  // The first stage
  const key = b.wrap(b.shrU(linear, 21))
  const region = b.add(b.add(cpu, REGIONS), b.shl(b.and(b.xor(key, b.shrU(key, 9)), REGION_MASK), Math.log2(REGION.entry)))
  unless(b.and(b.eq(load(region, REGION.key), key), b.eq(load(region, REGION.generation), b.slot(S.generation, 'i32'))))
  const number = b.and(b.shrU(low, 12), 0x1ff)
  const rights = b.variable(load(region, REGION.rights), 'rights')
  const entry = b.variable(load(region, REGION.leaf), 'entry')
  const frame = b.variable(b.or(load(region, REGION.frame), number), 'frame')
  const table = load(region, REGION.table)
  b.if(b.ne(table, -1), () => {
    const whole = b.rawLoad('i64', b.shl(b.add(table, b.shl(number, 1)), 2), 0, 64)
    const high = b.wrap(b.shrU(whole, 32))
    unless(b.eqz(b.and(high, b.slot(RESERVED_HIGH, 'i32'))))
    b.assign(entry, b.wrap(whole))
    b.assign(rights, b.or(b.and(b.get(rights), b.or(b.get(entry), 0x8000_0000 | 0)), b.and(high, 0x8000_0000 | 0)))
    b.assign(frame, b.or(b.wrap(b.and(b.shrU(whole, 12), 0xf_ffff)), b.shl(b.and(high, FRAME_HIGH), 20)))
  })
  const writes = b.eq(access, ACCESS.write)
  const need = b.or(PAGE_ENTRY.present | PAGE_ENTRY.accessed, b.mul(writes, PAGE_ENTRY.dirty))
  unless(b.eq(b.and(b.get(entry), need), need))

  // Rights: those of the TLB bank. If CR0.WP is 0, supervisor writes to read-only pages are not filled here.
  const tlb = b.slot(S.tlb, 'i32')
  const bank = b.sub(tlb, b.slot(S.banks, 'i32'))
  const isUser = b.eq(bank, TLB_BANK.user * TLB_BANK_SIZE)
  const userPage = b.and(b.get(rights), PAGE_ENTRY.user)
  const isFetch = b.eq(access, ACCESS.fetch)
  const isStrict = b.or(isFetch, b.eq(bank, TLB_BANK.supervisor * TLB_BANK_SIZE))
  b.if(isUser, () => unless(userPage), () => b.if(isStrict, () => unless(b.eqz(userPage))))
  const isWritable = b.and(b.get(rights), PAGE_ENTRY.writable)
  b.if(writes, () => unless(isWritable))
  b.if(isFetch, () => unless(b.geS(b.get(rights), 0)))

  // The second stage
  const cached = b.add(b.add(cpu, FRAMES), b.shl(b.and(b.get(frame), CACHE_MASK), Math.log2(FRAME.entry)))
  unless(b.eq(load(cached, FRAME.frame), b.get(frame)))
  const found = load(cached, FRAME.page)
  unless(b.and(found, b.select(isFetch, b.i32(EPT_ENTRY.execute), b.add(b.i32(EPT_ENTRY.read), writes))))
  const page = b.and(found, -4096)
  const code = b.rawLoad('i32', b.add(b.slot(S.codeHolders, 'i32'), b.shrU(page, 11)), 0, 16)
  b.if(writes, () => unless(b.eqz(code)))

  // The TLB
  const at = tlbEntry(b, linear)
  const tag = b.and(linear, -4096)
  const addend = b.sub(page, b.wrap(tag))
  const isGlobal = b.and(b.ne(b.and(b.get(entry), PAGE_ENTRY.global), 0), b.ne(b.and(quick, QUICK.global), 0))
  const isKnown = b.and(
    b.and(b.eq(load(at, TLB.addend), addend), b.eq(load(at, TLB.global), isGlobal)),
    b.or(b.eq(b.rawLoad('i64', at, TLB.read, 64), tag), b.eq(b.rawLoad('i64', at, TLB.execute, 64), tag)),
  )
  b.if(b.eqz(isKnown), () => {
    for (const offset of [TLB.read, TLB.write, TLB.execute]) b.rawStore(at, offset, 64, b.const(-1))
    b.rawStore(at, TLB.addend, 32, addend)
    b.rawStore(at, TLB.global, 32, isGlobal)
    b.ifUnlikely(b.and(isGlobal, b.geS(linear, 0)), () => b.setSlot(LOW_GLOBALS, b.i32(1)))
    const context = b.slot(S.banks, 'i32')
    const count = load(context, JOURNAL_COUNT)
    b.if(b.ltU(count, JOURNAL_SIZE), () => b.rawStore(b.add(context, b.shl(count, 2)), JOURNAL, 32, b.shrU(at, 2)))
    b.rawStore(context, JOURNAL_COUNT, 32, b.add(count, 1))
  })
  b.if(
    isFetch,
    () => b.rawStore(at, TLB.execute, 64, tag),
    () => {
      b.rawStore(at, TLB.read, 64, tag)
      const isPlain = b.and(b.and(b.ne(b.and(b.get(entry), PAGE_ENTRY.dirty), 0), b.ne(isWritable, 0)), b.and(b.ne(b.and(found, EPT_ENTRY.write), 0), b.eqz(code)))
      b.if(isPlain, () => b.rawStore(at, TLB.write, 64, tag))
    },
  )
  b.setSlot(S.statistics + 16, b.add(b.slot(S.statistics + 16, 'i32'), 1))
  b.return(b.add(page, b.and(low, 0xfff)))
  return { root: b.root, callees: b.callees, signature: QUICK_FILL_TYPE }
}
