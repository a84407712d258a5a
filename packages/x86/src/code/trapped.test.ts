/** Instructions that the hooks' policy traps, in both tiers; and which rows are sensitive. */
import { describe, expect, it } from 'vitest'
import { runningInstruction } from './running.ts'
import { rows } from '../rows/index.ts'
import { JUMPED, LEFT, NEXT, PROCEED, type HookRow, type Hooks } from '../state/hooks.ts'
import { MODE } from '../state/mode.ts'
import { EXIT, RAX, RBX, S } from '../state/layout.ts'
import { GuestFault } from '../state/core.ts'
import { VECTOR } from '../state/register-bits.ts'
import { asm } from '../testing/asm.ts'
import { PLACE, type BareMetal } from '../testing/bare-metal.ts'
import { NO_HOOKS } from '../testing/no-hooks.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'

const byMnemonic =
  (...names: string[]): Hooks['policy'] =>
  ({ mnemonic }) =>
    names.includes(mnemonic) ? 'trap' : 'run'

/** In long mode at CPL 3. `seen`: row, RIP and length of each instruction that was asked about. */
function deprivileged(tier: (typeof TIERS)[number], policy: Hooks['policy'], answer: (m: BareMetal, row: HookRow) => 0 | 1 | 2 | -1) {
  const machine = machineOf(tier)
  const seen: [string, number, number][] = []
  machine.enter('long', 3)
  machine.core.hooks = {
    ...NO_HOOKS,
    policy: policy!,
    trapped: (id) => {
      seen.push([rows[id]!.mnemonic, machine.rip - PLACE.code, machine.core.recordLength()])
      return answer(machine, rows[id]!)
    },
  }
  return { machine, seen }
}

describe.each(TIERS)('trapped instructions, %s', (tier) => {
  it.each<[string, number[], number]>([
    ['SYSCALL', asm(64, 'mov ebx, 1; syscall; add ebx, 1; ud2'), 2],
    ['SYSENTER', asm(64, 'mov ebx, 1; sysenter; add ebx, 1; ud2'), 2],
    ['INT', asm(64, 'mov ebx, 1; int 0x80; add ebx, 1; ud2'), 2],
    ['PUSHF', asm(64, 'mov ebx, 1; pushfq; add ebx, 1; ud2'), 1],
    ['MOV', asm(64, 'mov ebx, 1; mov ax, cs; add ebx, 1; ud2'), 3],
    ['CLI', asm(64, 'mov ebx, 1; cli; add ebx, 1; ud2'), 1],
    ['HLT', asm(64, 'mov ebx, 1; hlt; add ebx, 1; ud2'), 1],
  ])('%s is emulated, and the next instruction runs', (mnemonic, code, length) => {
    const policy: Hooks['policy'] = ({ mnemonic, attributes: { cpl, sensitive, flow } }, mode) =>
      !(mode & MODE.user) ? 'run' : cpl === 0 || sensitive || (flow === 'far' && mnemonic.startsWith('SYS')) || mnemonic === 'CLI' ? 'trap' : 'run'
    const { machine, seen } = deprivileged(tier, policy, () => NEXT)
    machine.run(code)
    expect(seen).toEqual([[mnemonic, 5, length]])
    expect([machine.vector, machine.register(RBX)]).toEqual([VECTOR.UD, 2n])
  })
  it('goes on where the hook says', () => {
    const { machine } = deprivileged(tier, byMnemonic('SYSCALL'), ({ core }) => {
      core.set64(S.rip, BigInt(PLACE.code + 0x100))
      return JUMPED
    })
    machine.write(PLACE.code + 0x100, asm(64, 'mov eax, 7; ud2'))
    machine.run(asm(64, 'syscall; int3'))
    expect([machine.vector, machine.register(RAX)]).toEqual([VECTOR.UD, 7n])
  })
  it('runs as usual where the hook proceeds, privilege checks and all', () => {
    const { machine, seen } = deprivileged(tier, byMnemonic('PUSHF', 'CLI'), () => PROCEED)
    machine.run(asm(64, 'pushfq; pop rax; cli; int3'))
    expect(seen.map(([mnemonic]) => mnemonic)).toEqual(['PUSHF', 'CLI'])
    expect([machine.vector, machine.register(RAX), machine.frame(true).rip]).toEqual([VECTOR.GP, 2n, PLACE.code + 2])
  })
  it.each([
    { code: [0x90, 0x9c, 0x58, 0x90, 0x0f, 0x0b], vector: VECTOR.UD, text: 'nop; pushfq; pop rax; nop; ud2' },
    { code: [0x90, 0x90, 0xfa], vector: VECTOR.GP, text: 'nop; nop; cli, which faults' },
  ])('counts each instruction once: $text', ({ code, vector }) => {
    const counts = [() => 'run' as const, byMnemonic('PUSHF', 'CLI')].map((policy) => {
      const { machine } = deprivileged(tier, policy, () => PROCEED)
      machine.run(code)
      expect(machine.vector).toBe(vector)
      return machine.processor.retired
    })
    expect(counts[1]).toBe(counts[0])
  })
  it('raises what the hook throws, at the instruction', () => {
    const { machine } = deprivileged(tier, byMnemonic('SMSW'), () => {
      throw new GuestFault(VECTOR.GP, 0x18)
    })
    machine.run(asm(64, 'nop; smsw eax; int3'))
    expect([machine.vector, machine.frame(true).error, machine.frame(true).rip]).toEqual([VECTOR.GP, 0x18, PLACE.code + 1])
  })
  it('stops behind what it emulated; every instruction counts once', () => {
    const { machine } = deprivileged(tier, byMnemonic('SYSCALL'), ({ core }) => {
      core.set64(S.rip, core.nextRip())
      core.set32(S.exit, EXIT.stop)
      return LEFT
    })
    const before = machine.processor.retired
    expect(machine.run(asm(64, 'nop; syscall; nop'))).toBe('stop')
    expect([machine.rip - PLACE.code, machine.processor.retired - before]).toEqual([3, 2])
  })
  it('shows flags that a later instruction overwrites', () => {
    const flags: number[] = []
    const { machine } = deprivileged(tier, byMnemonic('SMSW'), (m) => {
      flags.push(m.flags & 0x41)
      return NEXT
    })
    machine.run(asm(64, 'xor eax, eax; sub eax, 1; smsw ecx; add eax, 1; smsw ecx; xor ebx, ebx; ud2'))
    expect(flags).toEqual([0x01, 0x41])
  })
  it('shows its operands', () => {
    const texts: unknown[] = []
    const { machine } = deprivileged(tier, byMnemonic('INT'), ({ core }) => {
      texts.push(runningInstruction(core)!.immediate)
      return NEXT
    })
    machine.run(asm(64, 'int 0x82; int 0x21; ud2'))
    expect(texts).toEqual([0x82, 0x21])
  })
  it('asks in a loop each time, also when the loop is hot', () => {
    const { machine, seen } = deprivileged(tier, byMnemonic('SYSCALL'), () => NEXT)
    machine.run(asm(64, 'mov ecx, 50; l: mov eax, 1; syscall; dec ecx; jnz l; ud2'))
    expect([seen.length, machine.vector]).toEqual([50, VECTOR.UD])
  })
})

describe('the policy', () => {
  it('is asked once for each row and mode, and anew after a reset', () => {
    const asked = new Map<string, number>()
    const machine = machineOf('interpreted')
    machine.enter('long', 3)
    machine.core.hooks = { ...NO_HOOKS, policy: ({ id }, mode) => (asked.set(`${id}/${mode}`, (asked.get(`${id}/${mode}`) ?? 0) + 1), 'run') }
    machine.run(asm(64, 'nop; jmp l; nop; l: nop; ud2'))
    // At CPL 3, and at CPL 0 for the handler.
    expect([asked.size, Math.max(...asked.values())]).toEqual([2 * rows.length, 1])
    machine.processor.blocks.reset()
    machine.run(asm(64, 'nop; ud2'))
    expect(Math.max(...asked.values())).toBe(2)
  })
  it('costs nothing where it traps nothing: the same records', () => {
    const code = asm(64, 'pushfq; pop rax; smsw ebx; ud2')
    const sizes = [undefined, () => 'run' as const].map((policy) => {
      const machine = machineOf('interpreted')
      machine.enter('long', 3)
      machine.core.hooks = policy && { ...NO_HOOKS, policy }
      machine.run(code)
      expect(machine.vector).toBe(VECTOR.UD)
      return machine.processor.blocks.arenaUsed
    })
    expect(sizes[0]).toBe(sizes[1])
  })
})

describe('sensitive rows', () => {
  // Robin and Irvine, table 2, by mnemonic; IRET, INT1, INT3 and INTO do what RET and INT n do.
  it('are those that do not trap', () => {
    const sensitive = new Set(rows.filter(({ attributes }) => attributes.sensitive).map(({ mnemonic }) => mnemonic))
    expect([...sensitive].toSorted()).toEqual(
      ['CALL', 'INT', 'INT1', 'INT3', 'INTO', 'IRET', 'JMP', 'LAR', 'LSL', 'MOV', 'POP', 'POPF', 'PUSH', 'PUSHF', 'RETF', 'SGDT', 'SIDT', 'SLDT', 'SMSW', 'STR', 'VERR', 'VERW'].toSorted(),
    )
  })
  it('are none that only CPL 0 may run, nor near or general forms', () => {
    const wrong = rows.filter(
      ({ attributes: { sensitive, cpl, flow }, operands }) =>
        sensitive && (cpl === 0 || flow === 'call' || flow === 'jump' || flow === 'return' || operands.some(({ kind }) => kind === 'Z' || kind === 'C')),
    )
    expect(wrong).toEqual([])
    expect(rows.filter(({ attributes, mnemonic }) => attributes.sensitive && ['MOV', 'PUSH', 'POP'].includes(mnemonic)).map(({ operandText }) => operandText)).toEqual(
      ['Esreg,Sw', 'ES', 'CS', 'SS', 'DS', 'FS', 'GS', 'ES', 'SS', 'DS', 'FS', 'GS'],
    )
  })
})
