import { describe, expect, it } from 'vitest'
import { allowed, CONTROLS, EntryControl, ExitControl, ProcessorControl, SecondaryControl } from './tables/controls.ts'
import { createBench } from './testing/bench.ts'

/** xorshift32: the same on every run. */
function createRandom(seed: number): () => number {
  let state = seed | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

const RUNS = 60

describe('guests that run whatever bytes there are', () => {
  it.each([
    { mode: 'real mode', cr0: 0x10n, cs: 0x9b },
    { mode: 'protected mode, 32 bits', cr0: 0x11n, cs: 0xc09b },
  ])(
    '$mode: end in a neutral exit, never in an error of ours',
    ({ cr0, cs }) => {
      const reasons: Record<string, number> = {}
      const bench = createBench([])
      const { vcpu, guestMemory } = bench
      const code = new Uint8Array(0x4000)
      for (let run = 0; run < RUNS; run++) {
        const random = createRandom(0x9e37_79b9 ^ (run * 0x1234_5671))
        for (let i = 0; i < code.length; i++) code[i] = random() >>> 24
        // System instructions, ports and MSRs come up often enough to matter.
        for (let i = 0; i < code.length; i += 64)
          code.set([[0x0f, 0x30], [0x0f, 0x32], [0xef], [0xed], [0x0f, 0x22, 0xc0], [0x0f, 0xa2]][random() % 6]!, i)
        vcpu.reset('powerUp')
        guestMemory.writeBytes(0x1000, code)
        for (let vector = 0; vector < 32; vector++) guestMemory.writeU32(vector * 4, 0x1000 + (random() & 0x3fff))
        const limit = cr0 & 1n ? 0xffff_ffff : 0xffff
        const data = { selector: 0x10, base: 0n, limit, attributes: cr0 & 1n ? 0xc093 : 0x93 }
        vcpu.writeState({
          rip: 0x1000n,
          rsp: 0x8000n,
          cr0,
          cs: { selector: 8, base: 0n, limit, attributes: cs },
          ds: data,
          es: data,
          ss: data,
        })
        vcpu.writeState({
          rcx: BigInt(random()),
          rdx: BigInt(random()),
          rax: BigInt(random()),
          rsi: 0x2000n,
          rdi: 0x3000n,
        })
        const exit = vcpu.run(20_000)
        reasons[exit.reason] = (reasons[exit.reason] ?? 0) + 1
        if (exit.reason === 'failure') expect(exit.message).toMatch(/VM entry failed its check/)
      }
      expect(Object.values(reasons).reduce((sum, count) => sum + count, 0)).toBe(RUNS)
      expect(reasons['failure'] ?? 0).toBe(0)
    },
    60_000,
  )
})

describe('whatever implemented controls there are', () => {
  /** Bits that a guest in real mode on these tables cannot do without, or must not have. */
  const KEPT = {
    pin: 0,
    processor: ProcessorControl.activateSecondaryControls | ProcessorControl.useMsrBitmaps,
    secondary: SecondaryControl.enableEpt | SecondaryControl.unrestrictedGuest,
    exit: ExitControl.hostAddressSpaceSize,
    entry: EntryControl.ia32eModeGuest,
  } as const

  it('a guest of random bytes ends in a neutral exit, and only consistent controls are entered', () => {
    const reasons: Record<string, number> = {}
    const bench = createBench([])
    const { vcpu, guestMemory, host } = bench
    const { vmcs } = vcpu
    Object.assign(bench.ports.clock, { tsc: () => BigInt(vcpu.instructionsRetired) })
    const frame = (): bigint => BigInt(host.allocateFrame()!)
    const pages = { virtualApicAddress: frame(), pmlAddress: frame(), ioBitmapA: frame(), ioBitmapB: frame() } as const
    const code = new Uint8Array(0x2000)
    for (let run = 0; run < RUNS; run++) {
      const random = createRandom(0x1357_9bdf ^ (run * 0x2468_ace1))
      for (let i = 0; i < code.length; i++) code[i] = random() >>> 24
      for (let i = 0; i < code.length; i += 32)
        code.set([[0xf3, 0x90], [0x0f, 0x31], [0xfb, 0x90], [0xf3, 0xaa], [0xcd, 0x40], [0xcf]][random() % 6]!, i)
      vcpu.reset('powerUp')
      guestMemory.writeBytes(0x1000, code)
      for (let vector = 0; vector < 256; vector++) guestMemory.writeU32(vector * 4, 0x1000 + (random() & 0x1fff))
      for (const kind of ['pin', 'processor', 'secondary', 'exit'] as const) {
        const { field, implemented } = CONTROLS[kind]
        const kept = KEPT[kind]
        const bits = (random() & implemented & ~kept) | (vmcs.read32(field) & kept) | allowed(kind).mustBeOne
        vmcs.write(field, bits >>> 0)
      }
      for (const [field, address] of Object.entries(pages)) vmcs.write(field as keyof typeof pages, address)
      vmcs.write('preemptionTimer', random() % 3000)
      vmcs.write('tscMultiplier', BigInt(random()) << 20n)
      vmcs.write('pmlIndex', random() % 512)
      vmcs.write('exceptionBitmap', random())
      vmcs.write('pleGap', random() % 100)
      vmcs.write('pleWindow', random() % 1000)
      vcpu.writeState({
        rip: 0x1000n,
        rsp: 0x8000n,
        rdi: 0x6000n,
        cs: { selector: 0, base: 0n, limit: 0xffff, attributes: 0x9b },
      })
      if (random() & 1) bench.pending.push(random() & 0xff)
      if (random() & 1) vcpu.inject({ kind: 'nmi' })
      for (let slice = 0; slice < 20; slice++) {
        const exit = vcpu.run(1000)
        const name = exit.reason === 'failure' ? exit.message : exit.reason
        reasons[name] = (reasons[name] ?? 0) + 1
        if (exit.reason === 'failure') expect(exit.message).toMatch(/VM entry failed its check/)
        if (exit.reason === 'failure' || exit.reason === 'shutdown') break
      }
      bench.pending.length = 0
    }
    const failures = Object.keys(reasons).filter((name) => name.startsWith('VM entry'))
    for (const name of failures)
      expect(name).toMatch(/'(tprShadow|nmiExiting|virtualNmis|exit.preemptionTimer|virtualizeX2apic)/)
    // Every second of them must be entered, or nothing was tried.
    expect((reasons['budget'] ?? 0) + (reasons['halt'] ?? 0) + (reasons['shutdown'] ?? 0)).toBeGreaterThan(RUNS / 2)
    expect(vcpu.accounting.counts()).toMatchObject({
      monitorTrapFlag: expect.any(Number),
      preemptionTimer: expect.any(Number),
      exceptionOrNmi: expect.any(Number),
      pause: expect.any(Number),
    })
  }, 60_000)
})
