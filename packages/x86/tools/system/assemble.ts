/** The few 64-bit instructions that system programs are laid out with, as bytes. (SDM Vol. 2, the instructions' own pages) */

export const R = { rax: 0, rcx: 1, rdx: 2, rbx: 3, rsp: 4, rbp: 5, rsi: 6, rdi: 7, r8: 8, r9: 9, r10: 10, r11: 11, r12: 12, r13: 13, r14: 14, r15: 15 } as const
export type Register = (typeof R)[keyof typeof R]

const rex = (reg: number, rm: number, wide = true): number => 0x40 | (wide ? 8 : 0) | (reg >> 3 ? 4 : 0) | (rm >> 3 ? 1 : 0)
const le = (value: bigint, bytes: number): number[] => Array.from({ length: bytes }, (_, n) => Number((BigInt.asUintN(64, value) >> BigInt(8 * n)) & 0xffn))
/** [base + disp32]; RSP and R12 need a SIB byte. */
const memory = (reg: number, base: number, offset: number): number[] => [
  0x80 | ((reg & 7) << 3) | (base & 7), ...((base & 7) === 4 ? [0x24] : []), ...le(BigInt(offset), 4),
]
const direct = (reg: number, rm: number): number => 0xc0 | ((reg & 7) << 3) | (rm & 7)
const onMemory = (opcode: readonly number[], wide = true) => (reg: number, base: number, offset = 0): number[] => [rex(reg, base, wide), ...opcode, ...memory(reg, base, offset)]

export const asm = {
  movImmediate: (to: number, value: bigint): number[] => [rex(0, to), 0xb8 | (to & 7), ...le(value, 8)],
  movImmediate32: (to: number, value: number): number[] => [rex(0, to, false), 0xb8 | (to & 7), ...le(BigInt(value), 4)],
  load: onMemory([0x8b]),
  store: onMemory([0x89]),
  /** ADD [memory], register. */
  addTo: onMemory([0x01]),
  xchg: onMemory([0x87]),
  /** ADD register, [memory]. */
  addFrom: onMemory([0x03]),
  orByte: (base: number, offset: number, value: number): number[] => [rex(0, base, false), 0x80, ...memory(1, base, offset), value],
  move: (to: number, from: number): number[] => [rex(from, to), 0x89, direct(from, to)],
  add: (to: number, from: number): number[] => [rex(from, to), 0x01, direct(from, to)],
  addImmediate: (to: number, value: number): number[] => [rex(0, to), 0x81, direct(0, to), ...le(BigInt(value), 4)],
  decrement: (register: number): number[] => [rex(0, register), 0xff, direct(1, register)],
  push: (register: number): number[] => [rex(0, register, false), 0x50 | (register & 7)],
  pop: (register: number): number[] => [rex(0, register, false), 0x58 | (register & 7)],
  jump: (register: number): number[] => [rex(4, register, false), 0xff, direct(4, register)],
  call: (register: number): number[] => [rex(2, register, false), 0xff, direct(2, register)],
  ret: (): number[] => [0xc3],
  jumpRelative: (distance: number): number[] => [0xe9, ...le(BigInt(distance), 4)],
  jumpNotZero: (distance: number): number[] => [0x0f, 0x85, ...le(BigInt(distance), 4)],
  toControl: (n: number, from: number): number[] => [rex(n, from, false), 0x0f, 0x22, direct(n, from)],
  fromControl: (n: number, to: number): number[] => [rex(n, to, false), 0x0f, 0x20, direct(n, to)],
  invlpg: (base: number): number[] => [rex(0, base, false), 0x0f, 0x01, ...memory(7, base, 0)],
  invpcid: (type: number, base: number): number[] => [0x66, rex(type, base, false), 0x0f, 0x38, 0x82, ...memory(type, base, 0)],
  toSegment: (n: number, from: number): number[] => [rex(n, from, false), 0x8e, direct(n, from)],
  interrupt: (vector: number): number[] => [0xcd, vector],
  wrmsr: (): number[] => [0x0f, 0x30],
  rdmsr: (): number[] => [0x0f, 0x32],
  swapgs: (): number[] => [0x0f, 0x01, 0xf8],
  stac: (): number[] => [0x0f, 0x01, 0xcb],
  clac: (): number[] => [0x0f, 0x01, 0xca],
  cli: (): number[] => [0xfa],
  sti: (): number[] => [0xfb],
  iretq: (): number[] => [0x48, 0xcf],
  syscall: (): number[] => [0x0f, 0x05],
  sysretq: (): number[] => [0x48, 0x0f, 0x07],
  undefined2: (): number[] => [0x0f, 0x0b],
  divideByZero: (): number[] => [0x31, 0xc9, 0xf7, 0xf1],
  nop: (): number[] => [0x90],
  hlt: (): number[] => [0xf4],
}
