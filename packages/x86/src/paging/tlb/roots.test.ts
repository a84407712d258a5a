/** Two roots at one privilege level: what each sees, and what switching keeps. */
import { describe, expect, it } from 'vitest'
import { flushPage } from './tlb.ts'
import { setRoot, switchRoot } from './roots.ts'
import { rows } from '../../rows/index.ts'
import { NEXT } from '../../state/hooks.ts'
import { RAX, RBX, RSI, S } from '../../state/layout.ts'
import { MODE } from '../../state/mode.ts'
import { VECTOR } from '../../state/register-bits.ts'
import { asm } from '../../testing/asm.ts'
import { PLACE, type BareMetal } from '../../testing/bare-metal.ts'
import { NO_HOOKS } from '../../testing/no-hooks.ts'
import { machineOf, TIERS, type Tier } from '../../testing/tiers.ts'

/** Root 0 maps all as it is; root 1 has at 2 MiB what lies at 0. */
const SECOND = 0x30000
const [DATA, OTHER_DATA] = [0x22_0000, 0x2_0000]
const [CODE, OTHER_CODE] = [0x22_8000, 0x2_8000]

/** At CPL 3; SYSCALL changes the root. */
function twoRoots(tier: Tier): { machine: BareMetal; fills: () => number } {
  const machine = machineOf(tier)
  machine.enter('long', 3)
  machine.write64(SECOND, BigInt(SECOND + 0x1007))
  machine.write64(SECOND + 0x1000, BigInt(SECOND + 0x2007))
  for (let n = 0; n < 2; n++) machine.write64(SECOND + 0x2000 + 8 * n, 0x87n)
  const { core } = machine
  setRoot(core, 1, BigInt(SECOND))
  core.hooks = {
    ...NO_HOOKS,
    policy: ({ mnemonic }) => (mnemonic === 'SYSCALL' ? 'trap' : 'run'),
    trapped: () => {
      switchRoot(core, core.paging.root === 0 ? 1 : 0)
      return NEXT
    },
  }
  machine.write32(DATA, 10)
  machine.write32(OTHER_DATA, 3)
  return { machine, fills: () => Number(core.get64(S.statistics + 16)) }
}

describe.each(TIERS)('two roots, %s', (tier) => {
  it('read each its own memory, and switching keeps what was translated', () => {
    const { machine, fills } = twoRoots(tier)
    const before = fills()
    machine.run(asm(64, 'xor eax, eax; mov ecx, 100; l: add eax, [0x220000]; syscall; dec ecx; jnz l; ud2'))
    expect([machine.vector, machine.register(RAX)]).toEqual([VECTOR.UD, 650n])
    // Code and data once for each root, and what the exception needs.
    expect(fills() - before).toBeLessThan(12)
  })
  it('run each its own code at one address', () => {
    const { machine } = twoRoots(tier)
    machine.write(CODE, asm(64, 'add eax, 100; ret'))
    machine.write(OTHER_CODE, asm(64, 'add eax, 1; ret'))
    machine.run(asm(64, 'xor eax, eax; mov ebx, 0x228000; mov ecx, 40; l: call rbx; syscall; dec ecx; jnz l; ud2'))
    expect([machine.vector, machine.register(RAX)]).toEqual([VECTOR.UD, 2020n])
  })
  it('see writes to code through the other root', () => {
    const { machine } = twoRoots(tier)
    machine.write(OTHER_CODE, asm(64, 'add eax, 1; ret'))
    // Root 0 calls 28000H; root 1 writes to it as 228000H, first when there is no code yet, then ADD's immediate.
    machine.run(
      asm(
        64,
        'xor eax, eax; mov ebx, 0x28000; mov ecx, 20; syscall; mov byte ptr [0x228010], 0; syscall; l: call rbx; syscall; mov byte ptr [0x228002], cl; syscall; dec ecx; jnz l; ud2',
      ),
    )
    expect([machine.vector, machine.register(RAX)]).toEqual([VECTOR.UD, BigInt(1 + (20 * 21) / 2 - 1)])
  })
  it('take a second root with them to CPL 0', () => {
    const { machine } = twoRoots(tier)
    const { core } = machine
    core.hooks = undefined
    core.set64(S.lstar, 0x8100n)
    core.set64(S.star, 0x0018_0018_0000_0000n)
    machine.write(0x8100, asm(64, 'mov ebx, [0x220000]; ud2'))
    switchRoot(core, 1)
    machine.run(asm(64, 'mov eax, [0x220000]; syscall'))
    expect([machine.vector, machine.register(RAX), machine.register(RBX)]).toEqual([VECTOR.UD, 3n, 3n])
  })
})

describe('the root that is not in use', () => {
  const read = asm(64, 'mov esi, [0x220000]; ud2')
  const seen = (machine: BareMetal): bigint => {
    machine.core.set32(S.cpl, 3)
    machine.run(read)
    return machine.register(RSI)
  }
  function readUnderBoth(): BareMetal {
    const { machine } = twoRoots('interpreted')
    machine.core.hooks = undefined
    expect(seen(machine)).toBe(10n)
    switchRoot(machine.core, 1)
    expect(seen(machine)).toBe(3n)
    switchRoot(machine.core, 0)
    return machine
  }
  it('is reached by INVLPG', () => {
    const machine = readUnderBoth()
    machine.write64(SECOND + 0x2008, 0x20_0087n)
    flushPage(machine.core, DATA, 0)
    switchRoot(machine.core, 1)
    expect(seen(machine)).toBe(10n)
  })
  it('can be changed', () => {
    const machine = readUnderBoth()
    setRoot(machine.core, 1, BigInt(PLACE.tables))
    switchRoot(machine.core, 1)
    expect([seen(machine), machine.core.get64(S.cr3)]).toEqual([10n, BigInt(PLACE.tables)])
  })
  it('as the one in use', () => {
    const machine = readUnderBoth()
    setRoot(machine.core, 0, BigInt(SECOND))
    expect(seen(machine)).toBe(3n)
  })
  it('has modes of its own, for the policy', () => {
    const { machine } = twoRoots('interpreted')
    const modes = new Set<number>()
    machine.core.hooks = { ...NO_HOOKS, policy: ({ id }, mode) => (id === rows[0]!.id && modes.add(mode & MODE.secondRoot), 'run') }
    machine.run(read)
    switchRoot(machine.core, 1)
    machine.run(read)
    expect([...modes]).toEqual([0, MODE.secondRoot])
  })
})
