/** Data transfer, arithmetic and logic on general registers. (SDM Vol. 1, "General-Purpose Instructions".) */
import * as f from './flags.ts'
import { row, type RowSource } from './row.ts'

const { hex } = f

/** The eight operations that share one encoding scheme: 00 + 8n by form, and /n of the immediate groups. */
const ALU = ['ADD', 'OR', 'ADC', 'SBB', 'AND', 'SUB', 'XOR', 'CMP'].flatMap((mnemonic, n) => {
  const lock = mnemonic !== 'CMP'
  const logical = mnemonic === 'OR' || mnemonic === 'AND' || mnemonic === 'XOR'
  const carry = mnemonic === 'ADC' || mnemonic === 'SBB'
  const flags = logical ? f.LOGICAL : carry ? f.ARITHMETIC_WITH_CARRY : f.ARITHMETIC
  const opcode = (form: number) => hex(8 * n + form)
  return [
    row(mnemonic, 'Eb,Gb', `${opcode(0)} /r`, { lock, flags }),
    row(mnemonic, 'Ev,Gv', `${opcode(1)} /r`, { lock, flags }),
    row(mnemonic, 'Gb,Eb', `${opcode(2)} /r`, { flags }),
    row(mnemonic, 'Gv,Ev', `${opcode(3)} /r`, { flags }),
    row(mnemonic, 'AL,Ib', opcode(4), { flags }),
    row(mnemonic, 'rAX,Iz', opcode(5), { flags }),
    row(mnemonic, 'Eb,Ib', `80 /${n}`, { lock, flags }),
    row(mnemonic, 'Ev,Iz', `81 /${n}`, { lock, flags }),
    row(mnemonic, 'Eb,Ib', `82 /${n}`, { lock, flags, not64: true, undocumented: true }),
    row(mnemonic, 'Ev,Ibs', `83 /${n}`, { lock, flags }),
  ]
})

const UNARY = [
  row('TEST', 'Eb,Ib', 'F6 /0', { flags: f.LOGICAL }),
  row('TEST', 'Ev,Iz', 'F7 /0', { flags: f.LOGICAL }),
  row('TEST', 'Eb,Ib', 'F6 /1', { flags: f.LOGICAL, undocumented: true }),
  row('TEST', 'Ev,Iz', 'F7 /1', { flags: f.LOGICAL, undocumented: true }),
  row('NOT', 'Eb', 'F6 /2', { lock: true }),
  row('NOT', 'Ev', 'F7 /2', { lock: true }),
  row('NEG', 'Eb', 'F6 /3', { lock: true, flags: f.ARITHMETIC }),
  row('NEG', 'Ev', 'F7 /3', { lock: true, flags: f.ARITHMETIC }),
  row('MUL', 'Eb', 'F6 /4', { flags: f.MULTIPLY }),
  row('MUL', 'Ev', 'F7 /4', { flags: f.MULTIPLY }),
  row('IMUL', 'Eb', 'F6 /5', { flags: f.MULTIPLY }),
  row('IMUL', 'Ev', 'F7 /5', { flags: f.MULTIPLY }),
  row('DIV', 'Eb', 'F6 /6', { flags: f.DIVIDE }),
  row('DIV', 'Ev', 'F7 /6', { flags: f.DIVIDE }),
  row('IDIV', 'Eb', 'F6 /7', { flags: f.DIVIDE }),
  row('IDIV', 'Ev', 'F7 /7', { flags: f.DIVIDE }),
  row('INC', 'Eb', 'FE /0', { lock: true, flags: f.INCREMENT }),
  row('INC', 'Ev', 'FF /0', { lock: true, flags: f.INCREMENT }),
  row('DEC', 'Eb', 'FE /1', { lock: true, flags: f.INCREMENT }),
  row('DEC', 'Ev', 'FF /1', { lock: true, flags: f.INCREMENT }),
  row('INC', 'Zv', '40 +r', { not64: true, flags: f.INCREMENT }),
  row('DEC', 'Zv', '48 +r', { not64: true, flags: f.INCREMENT }),
]

/** IMUL with a truncated product has its own semantics: the destination is not rDX:rAX. */
const MULTIPLY = [
  row('IMUL', 'Gv,Ev', '0F AF /r', { semantics: 'imulTruncated', flags: f.MULTIPLY }),
  row('IMUL', 'Gv,Ev,Iz', '69 /r', { semantics: 'imulTruncated', flags: f.MULTIPLY }),
  row('IMUL', 'Gv,Ev,Ibs', '6B /r', { semantics: 'imulTruncated', flags: f.MULTIPLY }),
]

const MOVE = [
  row('MOV', 'Eb,Gb', '88 /r'),
  row('MOV', 'Ev,Gv', '89 /r'),
  row('MOV', 'Gb,Eb', '8A /r'),
  row('MOV', 'Gv,Ev', '8B /r'),
  row('MOV', 'AL,Ob', 'A0'),
  row('MOV', 'rAX,Ov', 'A1'),
  row('MOV', 'Ob,AL', 'A2'),
  row('MOV', 'Ov,rAX', 'A3'),
  row('MOV', 'Zb,Ib', 'B0 +r'),
  row('MOV', 'Zv,Iv', 'B8 +r'),
  row('MOV', 'Eb,Ib', 'C6 /0'),
  row('MOV', 'Ev,Iz', 'C7 /0'),
  row('MOVZX', 'Gv,Eb', '0F B6 /r'),
  row('MOVZX', 'Gv,Ew', '0F B7 /r'),
  row('MOVSX', 'Gv,Eb', '0F BE /r'),
  row('MOVSX', 'Gv,Ew', '0F BF /r'),
  row('MOVSXD', 'Gv,Ez', '63 /r', { semantics: 'movsx', only64: true }),
  row('MOVBE', 'Gv,Mv', 'NFx 0F 38 F0 /r', { cpuid: 'movbe' }),
  row('MOVBE', 'Mv,Gv', 'NFx 0F 38 F1 /r', { cpuid: 'movbe' }),
  row('MOVNTI', 'My,Gy', 'NP 0F C3 /r', { cpuid: 'sse2' }),
  row('MOVDIRI', 'My,Gy', 'NP 0F 38 F9 /r', { cpuid: 'movdiri' }),
  row('MOVDIR64B', 'Gnone,Mnone', '66 0F 38 F8 /r', { cpuid: 'movdir64b' }),
  row('LEA', 'Gv,Mnone', '8D /r'),
  row('BSWAP', 'Zv', '0F C8 +r'),
  row('XLAT', '', 'D7'),
]

const EXCHANGE = [
  row('XCHG', 'Eb,Gb', '86 /r', { lock: true }),
  row('XCHG', 'Ev,Gv', '87 /r', { lock: true }),
  row('XCHG', 'Zv,rAX', '90 +r'),
  row('XADD', 'Eb,Gb', '0F C0 /r', { lock: true, flags: f.ARITHMETIC }),
  row('XADD', 'Ev,Gv', '0F C1 /r', { lock: true, flags: f.ARITHMETIC }),
  row('CMPXCHG', 'Eb,Gb', '0F B0 /r', { lock: true, flags: f.ARITHMETIC }),
  row('CMPXCHG', 'Ev,Gv', '0F B1 /r', { lock: true, flags: f.ARITHMETIC }),
  row('CMPXCHG8B', 'Mc', '0F C7 /1', {
    lock: true,
    flags: f.ZERO_ONLY,
    names: 'CMPXCHG8B CMPXCHG8B CMPXCHG16B',
  }),
]

const TEST = [
  row('TEST', 'Eb,Gb', '84 /r', { flags: f.LOGICAL }),
  row('TEST', 'Ev,Gv', '85 /r', { flags: f.LOGICAL }),
  row('TEST', 'AL,Ib', 'A8', { flags: f.LOGICAL }),
  row('TEST', 'rAX,Iz', 'A9', { flags: f.LOGICAL }),
]

const CONVERT = [row('CBW', '', '98', { names: 'CBW CWDE CDQE' }), row('CWD', '', '99', { names: 'CWD CDQ CQO' })]

/** Operands of PUSH and POP default to 64 bits; 66 selects 16. */
const STACK = [
  row('PUSH', 'Zv', '50 +r', { default64: true }),
  row('POP', 'Zv', '58 +r', { default64: true }),
  row('PUSH', 'Iz', '68', { default64: true }),
  row('PUSH', 'Ibs', '6A', { default64: true }),
  row('POP', 'Ev', '8F /0', { default64: true }),
  row('PUSH', 'Ev', 'FF /6', { default64: true }),
  row('PUSHA', '', '60', { not64: true, names: 'PUSHA PUSHAD PUSHAD' }),
  row('POPA', '', '61', { not64: true, names: 'POPA POPAD POPAD' }),
  row('PUSHF', '', '9C', { sensitive: true, default64: true, flags: f.flags(f.EVERY_FLAG, ''), names: 'PUSHF PUSHFD PUSHFQ' }),
  row('POPF', '', '9D', {
    sensitive: true,
    default64: true,
    flags: f.flags(f.EVERY_FLAG, f.EVERY_FLAG),
    flow: 'serialise',
    names: 'POPF POPFD POPFQ',
  }),
  row('ENTER', 'Iw,Ib', 'C8', { default64: true }),
  row('LEAVE', '', 'C9', { default64: true }),
]

const FLAG_CONTROL = [
  row('SAHF', '', '9E', { flags: f.flags('', 'SZAPC') }),
  row('LAHF', '', '9F', { flags: f.flags('SZAPC', '') }),
  row('CMC', '', 'F5', { flags: f.flags('C', 'C') }),
  row('CLC', '', 'F8', { flags: f.flags('', 'C') }),
  row('STC', '', 'F9', { flags: f.flags('', 'C') }),
  row('CLD', '', 'FC', { flags: f.flags('', 'D') }),
  row('STD', '', 'FD', { flags: f.flags('', 'D') }),
  row('SALC', '', 'D6', { not64: true, flags: f.flags('C', ''), undocumented: true }),
]

const DECIMAL = [
  row('DAA', '', '27', { not64: true, flags: f.flags('AC', 'OSZAPC', 'O') }),
  row('DAS', '', '2F', { not64: true, flags: f.flags('AC', 'OSZAPC', 'O') }),
  row('AAA', '', '37', { not64: true, flags: f.flags('A', 'OSZAPC', 'OSZP') }),
  row('AAS', '', '3F', { not64: true, flags: f.flags('A', 'OSZAPC', 'OSZP') }),
  row('AAM', 'Ib', 'D4', { not64: true, flags: f.flags('', 'OSZAPC', 'OAC') }),
  row('AAD', 'Ib', 'D5', { not64: true, flags: f.flags('', 'OSZAPC', 'OAC') }),
]

const CARRY_CHAINS = [
  row('ADCX', 'Gy,Ey', '66 0F 38 F6 /r', { cpuid: 'adx', flags: f.flags('C', 'C') }),
  row('ADOX', 'Gy,Ey', 'F3 0F 38 F6 /r', { cpuid: 'adx', flags: f.flags('O', 'O') }),
]

const CONDITIONAL = f.CONDITIONS.flatMap(([name, reads], code) => [
  row(`SET${name}`, 'Eb', `0F ${hex(0x90 + code)} /r`, { semantics: 'setcc', flags: f.flags(reads, '') }),
  row(`CMOV${name}`, 'Gv,Ev', `0F ${hex(0x40 + code)} /r`, {
    semantics: 'cmovcc',
    cpuid: 'cmov',
    flags: f.flags(reads, ''),
  }),
])

export const integer: readonly RowSource[] = [
  ...ALU,
  ...UNARY,
  ...MULTIPLY,
  ...MOVE,
  ...EXCHANGE,
  ...TEST,
  ...CONVERT,
  ...STACK,
  ...FLAG_CONTROL,
  ...DECIMAL,
  ...CARRY_CHAINS,
  ...CONDITIONAL,
]
