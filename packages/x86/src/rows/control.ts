/** Control transfer: jumps, calls, returns, loops, software interrupts. (SDM Vol. 1, "Control Transfer Instructions".) */
import * as f from './flags.ts'
import { row, type RowSource } from './row.ts'

/** Near branches: 64-bit operands in 64-bit mode whatever the prefixes say (SDM Vol. 2D, "f64"). */
const near = { force64: true } as const

const JCC = f.CONDITIONS.flatMap(([name, reads], code) => {
  const attributes = { ...near, semantics: 'jcc', flow: 'conditional', flags: f.flags(reads, '') } as const
  return [
    row(`J${name}`, 'Jb', f.hex(0x70 + code), attributes),
    row(`J${name}`, 'Jz', `0F ${f.hex(0x80 + code)}`, attributes),
  ]
})

const LOOPS = [
  row('LOOPNE', 'Jb', 'E0', { ...near, flow: 'conditional', flags: f.flags('Z', '') }),
  row('LOOPE', 'Jb', 'E1', { ...near, flow: 'conditional', flags: f.flags('Z', '') }),
  row('LOOP', 'Jb', 'E2', { ...near, flow: 'conditional' }),
  row('JCXZ', 'Jb', 'E3', { ...near, flow: 'conditional', names: 'JCXZ JECXZ JRCXZ', namesBy: 'addressSize' }),
]

const NEAR = [
  row('CALL', 'Jz', 'E8', { ...near, flow: 'call' }),
  row('CALL', 'Ev', 'FF /2', { ...near, semantics: 'callIndirect', flow: 'indirectCall' }),
  row('JMP', 'Jz', 'E9', { ...near, flow: 'jump' }),
  row('JMP', 'Jb', 'EB', { ...near, flow: 'jump' }),
  row('JMP', 'Ev', 'FF /4', { ...near, semantics: 'jmpIndirect', flow: 'indirectJump' }),
  row('RET', 'Iw', 'C2', { ...near, flow: 'return' }),
  row('RET', '', 'C3', { ...near, flow: 'return' }),
]

/** A task switch may load every flag. */
const FAR = [
  row('CALL', 'Ap', '9A', { semantics: 'callFar', sensitive: true, not64: true, flow: 'far', flags: f.flags('N', f.EVERY_FLAG) }),
  row('CALL', 'Mp', 'FF /3', { semantics: 'callFar', sensitive: true, flow: 'far', flags: f.flags('N', f.EVERY_FLAG) }),
  row('JMP', 'Ap', 'EA', { semantics: 'jmpFar', sensitive: true, not64: true, flow: 'far', flags: f.flags('N', f.EVERY_FLAG) }),
  row('JMP', 'Mp', 'FF /5', { semantics: 'jmpFar', sensitive: true, flow: 'far', flags: f.flags('N', f.EVERY_FLAG) }),
  row('RETF', 'Iw', 'CA', { sensitive: true, flow: 'far', names: 'RETF RETF RETFQ' }),
  row('RETF', '', 'CB', { sensitive: true, flow: 'far', names: 'RETF RETF RETFQ' }),
]

const INTERRUPTS = [
  row('INT3', '', 'CC', { sensitive: true, flow: 'trap' }),
  row('INT', 'Ib', 'CD', { sensitive: true, flow: 'trap' }),
  row('INTO', '', 'CE', { sensitive: true, not64: true, flow: 'trap', flags: f.flags('O', '') }),
  row('INT1', '', 'F1', { sensitive: true, flow: 'trap' }),
  row('IRET', '', 'CF', { sensitive: true, flow: 'far', flags: f.flags(f.EVERY_FLAG, f.EVERY_FLAG), names: 'IRET IRETD IRETQ' }),
  row('BOUND', 'Gv,Ma', '62 /r', { not64: true }),
  row('UD0', 'Gv,Ev', '0F FF /r', { semantics: 'ud', flow: 'trap' }),
  row('UD1', 'Gv,Ev', '0F B9 /r', { semantics: 'ud', flow: 'trap' }),
  row('UD2', '', '0F 0B', { semantics: 'ud', flow: 'trap' }),
]

/** Not advertised; the rows exist so that code that holds them can be read. */
const TRANSACTIONS = [
  row('XABORT', 'Ib', 'C6 F8', { cpuid: 'rtm' }),
  row('XBEGIN', 'Jz', 'C7 F8', { cpuid: 'rtm', flow: 'conditional' }),
  row('XEND', '', 'NP 0F 01 D5', { cpuid: 'rtm' }),
  row('XTEST', '', 'NP 0F 01 D6', { cpuid: 'rtm', flags: f.flags('', 'OSZAPC') }),
]

export const control: readonly RowSource[] = [...JCC, ...LOOPS, ...NEAR, ...FAR, ...INTERRUPTS, ...TRANSACTIONS]
