/** Fills in wasm against the walker: what they enter is what it enters, and what is not theirs they leave. */
import { beforeEach, describe, expect, it } from 'vitest'
import { exportedModule } from '../../backend/function-module.ts'
import { BareMetal } from '../../testing/bare-metal.ts'
import { S, TLB, TLB_ENTRIES } from '../../state/layout.ts'
import { updateMode } from '../../control/update-mode.ts'
import { ACCESS } from '../../state/paging-state.ts'
import { quickFillBody } from './quick-fill.ts'
import { fetchPage, flushAll, flushPage, slowRead, slowWrite, updatePaging } from '../index.ts'

const P = 1n, W = 2n, U = 4n, A = 0x20n, D = 0x40n, PS = 0x80n, G = 0x100n, NX = 1n << 63n
const { read, write, fetch } = ACCESS
const ROOT = 0x10000
const LINEAR = 0x40_0000_1008n
const [LOW, HIGH] = [0x1008, 0x40]
const SMAP = 0x20_0020

interface Case {
  /** Of the page's entry, and of those above. Default of the latter: all rights. */
  readonly leaf: bigint
  readonly above?: bigint
  readonly large?: true
  readonly access: number
  readonly cr0?: number
  readonly cr4?: number
  readonly user?: true
  readonly ac?: true
  readonly bytes?: number
}

let machine: BareMetal
let quickFill: (cpu: number, linear: bigint, access: number, bytes: number) => number

beforeEach(() => {
  machine = new BareMetal()
  const { core, processor: { handlers } } = machine
  const module = new WebAssembly.Module(exportedModule([quickFillBody()], handlers.moduleContext))
  quickFill = new WebAssembly.Instance(module, { e: { memory: core.memory.memory, table: handlers.table } }).exports['0'] as typeof quickFill
})

function arrange({ leaf, above = P | W | U | A, large, cr0 = 0x8001_0031, cr4 = 0x20, user, ac }: Case): void {
  const { core } = machine
  core.set64(S.cr0, BigInt(cr0 >>> 0))
  core.set64(S.cr4, BigInt(cr4))
  core.set64(S.efer, 0xd00n)
  core.set64(S.cr3, BigInt(ROOT))
  core.set32(S.cpl, user ? 3 : 0)
  core.set32(S.flags, ac ? 0x40002 : 2)
  const tables = [ROOT, ROOT + 0x1000 + 256 * 8, ROOT + 0x2000, ROOT + 0x3008]
  for (const [level, at] of tables.entries()) machine.write64(at, level < 3 ? BigInt(ROOT + (level + 1) * 0x1000) | above : 0x20_0000n | leaf)
  if (large) machine.write64(tables[2]!, 0x20_0000n | PS | leaf)
  updatePaging(core)
  updateMode(core)
  flushAll(core)
}
/** The access by the walker. True: it fills the TLB. */
function walkFor(access: number, bytes = 1): boolean {
  const { core } = machine
  core.set64(S.address, LINEAR)
  if (access === fetch) return fetchPage(core, LOW, HIGH) >= 0
  return (access === write ? slowWrite(core, bytes) : slowRead(core, bytes)) === 0
}
const entryAt = (): number => machine.core.get32(S.tlb) + ((LOW >>> 12) & (TLB_ENTRIES - 1)) * TLB.entry
const entry = (): string => Buffer.from(machine.core.u8.slice(entryAt(), entryAt() + TLB.entry)).toString('hex')
const forget = (): void => void machine.core.u8.fill(0xff, entryAt(), entryAt() + TLB.entry)
const fill = (access: number, bytes = 1): number => quickFill(machine.core.base, LINEAR, access, bytes) >>> 0
const EMPTY = 'ff'.repeat(TLB.entry)

describe('filled', () => {
  it.each<[string, Case]>([
    ['a read', { leaf: P | W | A, access: read }],
    ['a read of what is dirty: writes as well', { leaf: P | W | A | D, access: read }],
    ['a read of what is read-only', { leaf: P | A | D, access: read }],
    ['a write', { leaf: P | W | A | D, access: write }],
    ['a fetch', { leaf: P | A, access: fetch }],
    ['a global page', { leaf: P | W | A | G, access: read, cr4: 0xa0 }],
    ['a global page without CR4.PGE', { leaf: P | W | A | G, access: read }],
    ['a user page for the supervisor', { leaf: P | W | U | A, access: read }],
    ['a user page for the user', { leaf: P | W | U | A | D, access: write, user: true }],
    ['a user fetch', { leaf: P | U | A, access: fetch, user: true }],
    ['a supervisor page under SMAP', { leaf: P | W | A | D, access: write, cr4: SMAP }],
    ['a user page with SMAP out of force', { leaf: P | W | U | A, access: read, cr4: SMAP, ac: true }],
    ['a large page', { leaf: P | W | A | D, large: true, access: write }],
    ['a large page, fetched', { leaf: P | A, large: true, access: fetch }],
    ['eight bytes that end on the page', { leaf: P | A, access: read, bytes: 8 }],
  ])('%s', (_text, given) => {
    arrange(given)
    expect(walkFor(given.access, given.bytes)).toBe(true)
    const walked = entry()
    forget()
    expect(fill(given.access, given.bytes)).toBe(0x20_0008 + (given.large ? 0x1000 : 0) + (16 << 20))
    expect(entry()).toBe(walked)
  })

  it('as pieces of a large page, which INVLPG drops, all of them', () => {
    arrange({ leaf: P | W | A, large: true, access: read })
    walkFor(read)
    forget()
    fill(read)
    flushPage(machine.core, 0x10_0000, HIGH)
    expect(machine.core.view.getInt32(entryAt() + TLB.read, true)).toBe(-1)
  })
})

describe('left to the walker', () => {
  it.each<[string, Case]>([
    ['a page whose accessed flag is to be set', { leaf: P | W, access: read }],
    ['a page whose dirty flag is to be set', { leaf: P | W | A, access: write }],
    ['a large page whose dirty flag is to be set', { leaf: P | W | A, large: true, access: write }],
    ['a page that is not there', { leaf: 0n, access: read }],
    ['a write to what is read-only', { leaf: P | A | D, access: write }],
    ['the same with CR0.WP off, which may', { leaf: P | A | D, access: write, cr0: 0x8000_0031 }],
    ['a supervisor page for the user', { leaf: P | W | A, access: read, user: true }],
    ['no right on the way', { leaf: P | W | U | A | D, above: P | W | A, access: read, user: true }],
    ['a user page under SMAP', { leaf: P | W | U | A, access: read, cr4: SMAP }],
    ['a fetch from a user page by the supervisor', { leaf: P | U | A, access: fetch }],
    ['execute-disable', { leaf: P | A | NX, access: fetch }],
    ['execute-disable of a large page', { leaf: P | A | NX, large: true, access: fetch }],
    ['a reserved bit', { leaf: P | A | (1n << 45n), access: read }],
    ['an access across pages', { leaf: P | A, access: read, bytes: 4096 }],
    ['five levels', { leaf: P | A, access: read, cr4: 0x1020 }],
  ])('%s', (_text, given) => {
    // Caches know the way from a harmless access; the case is what the entries say then.
    arrange({ ...given, leaf: P | W | U | A | D, above: P | W | U | A })
    walkFor(read)
    arrange(given)
    if (!given.large) {
      machine.core.set32(S.cpl, given.user ? 3 : 0)
      walkFor(read)
    } else walkFor(given.access === fetch ? read : given.access)
    // What the walker set is taken back.
    if (given.large) {
      machine.core.paging.regions.fill(-1)
      machine.write64(ROOT + 0x2000, 0x20_0000n | PS | given.leaf)
      walkFor(read)
    } else machine.write64(ROOT + 0x3008, 0x20_0000n | given.leaf)
    forget()
    expect(fill(given.access, given.bytes)).toBe(0)
    expect(entry()).toBe(EMPTY)
  })

  it.each<[string, (m: BareMetal) => void]>([
    ['writes to a page with code', ({ core }) => void (core.memory.codeHolders[((16 << 20) + 0x20_0000) >>> 12] = 1)],
    ['everything while a breakpoint watches', ({ core }) => { core.paging.watches = 1; updatePaging(core) }],
    ['everything after a change of the generation', ({ core }) => { core.set32(S.generation, core.get32(S.generation) + 1) }],
    ['frames that the second stage has forgotten', ({ core }) => void core.paging.cache.fill(-1)],
  ])('%s', (_text, change) => {
    const given: Case = { leaf: P | W | A | D, access: write }
    arrange(given)
    walkFor(write)
    forget()
    expect(fill(write)).not.toBe(0)
    forget()
    change(machine)
    expect(fill(write)).toBe(0)
    expect(entry()).toBe(EMPTY)
  })

  it('addresses that are not canonical', () => {
    arrange({ leaf: P | W | A, access: read })
    walkFor(read)
    forget()
    expect(quickFill(machine.core.base, LINEAR | (1n << 54n), read, 1)).toBe(0)
  })
})
