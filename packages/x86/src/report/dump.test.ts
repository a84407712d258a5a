import { describe, expect, it } from 'vitest'
import { IrBuilder } from '../ir/builder.ts'
import { print } from '../ir/print.ts'
import { gpr, S, segment, SEG } from '../state/layout.ts'
import { DUMP_MODES, dumpCode, slotName } from './dump.ts'

const bytes = (hex: string): Uint8Array => Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16))

/** Representative code. Behind each its assembly is checked by the disassembler, whose text heads the entry in the file. */
const CODE: readonly (readonly [bits: 16 | 32 | 64, hex: string])[] = [
  [64, '4801d8'], // register to register
  [64, '03448e08'], // load with base, scaled index, displacement
  [64, '800701'], // read, modify, write
  [64, '6629c8'], // 16 bits: the rest of the register stays
  [64, '48ffc24883d000'], // INC keeps CF for ADC
  [64, '488d0534120000'], // RIP-relative
  [64, '488945f8488b4df8'], // store, then load
  [64, '88dc'], // AH
  [64, '480fbe01'], // sign-extending load
  [64, '5059'], // stack
  [64, '4839d87c0e'], // compare and branch
  [64, 'ffc975fc'], // loop
  [64, '21c072047002eb02ffc8c3'], // branches that are never taken, to where no other way leads
  [64, '534883ec20488b4424084889442410'], // one look-up for the stack's slots
  [64, '85c00f94c0480f48ca'], // SETcc, CMOVcc
  [64, 'c1e0050f92c2'], // constant shift, its carry
  [64, '48d3f8'], // variable shift: flags may stay
  [64, '486bc364'], // IMUL
  [64, '48f7e3'], // 128-bit product
  [64, 'e81b000000'], // call
  [64, '7406c7f800000000'], // XBEGIN: a branch that always raises
  [64, 'c3'], // return
  [64, 'ff24c510000000'], // indirect jump through memory
  [64, '48930fc8'], // XCHG, BSWAP
  [64, '0fbae0037206'], // BT and carry
  [64, 'f3aa'], // REP STOSB
  [64, 'f0480fb10f'], // LOCK CMPXCHG
  [64, '0f28c10f5806'], // packed single
  [64, '660ffeca660f70d91b'], // packed integers
  [64, 'f20f58c1'], // scalar double
  [64, 'dd00d8c1'], // x87
  [64, '648b042510000000'], // FS
  [32, '03430450'], // 32-bit segments
  [16, '8b0083c002'], // 16-bit addressing
]

describe('generated code', () => {
  // After a change that is meant: `vitest -u`, and the file's difference goes into review.
  it('of representative instructions is as pinned', async () => {
    const entries = CODE.map(([bits, hex]) => {
      const { guest, region, handlers } = dumpCode(bytes(hex), 0, DUMP_MODES[bits])
      return [
        `======== ${bits}-bit: ${guest.map(({ text }) => text).join('; ')}`,
        `-------- region\n${region?.ir ?? 'none'}`,
        ...handlers.map(({ text, ir }) => `-------- handler: ${text}\n${ir}`),
      ].join('\n')
    })
    await expect(`${entries.join('\n\n')}\n`).toMatchFileSnapshot('pinned.test.txt')
  })

  it('is a valid module', () => {
    for (const [bits, hex] of CODE) {
      const { region } = dumpCode(bytes(hex), 0, DUMP_MODES[bits])
      if (region) expect(WebAssembly.validate(region.wasm), hex).toBe(true)
    }
  })
})

describe('a dump', () => {
  it('shows the region around an offset, and addresses of its page', () => {
    const code = new Uint8Array(0x1010)
    code.set(bytes('ffc975fcc3'), 0x1004)
    const { guest, region } = dumpCode(code, 0x1004, DUMP_MODES[64])
    expect(guest.map(({ address, text }) => `${address.toString(16)} ${text}`)).toEqual(['1004 dec ecx', '1006 jne 1004', '1008 ret'])
    expect(region?.blocks).toBe(2)
  })

  it('has no region where the interpreter does it all, and handlers all the same', () => {
    const { guest, region, handlers } = dumpCode(bytes('f490'), 0, DUMP_MODES[64])
    expect(region).toBeUndefined()
    expect(guest.map(({ text }) => text)[0]).toBe('hlt')
    expect(handlers).toHaveLength(guest.length)
  })

  it('ends where the code does', () => expect(dumpCode(bytes('4801'), 0, DUMP_MODES[64]).guest).toHaveLength(0))

  it.each([
    [gpr(0), 'rax'],
    [gpr(4) + 1, 'rsp+1'],
    [segment(2) + SEG.base, 'ss.base'],
    [S.xmm + 16 * 3 + 8, 'xmm3+8'],
    [S.args + 8, 'args+8'],
    [S.budget, 'budget'],
  ])('names slot %i %s', (offset, name) => expect(slotName(offset)).toBe(name))
})

describe('IR as text', () => {
  it('keeps reads in time, and folds what is pure into its use', () => {
    const b = new IrBuilder()
    const count = b.variable(b.const(3), 'n')
    const label = {}
    b.loop(() => {
      const left = b.sub(b.get(count), 1)
      b.assign(count, left)
      b.if(b.eqz(left), () => b.break(label))
      b.continue(label)
    }, label)
    b.return()
    expect(print(b.root)).toBe(
      ['n := 3', 'loop L0 {', '  %0 = n', '  %1 = i64.sub(%0, 1)', '  n := %1', '  if i64.eqz(%1) {', '    break L0', '  }', '  continue L0', '}', 'return'].join('\n'),
    )
  })
})
