/** The unprivileged sensitive instructions: code for each, with the registers that it needs. (Robin and Irvine, table of 17 instructions) */

import { COUNTING_VECTOR, KERNEL, little, SELECTOR, CODE } from './machines.ts'

export interface Snippet {
  readonly name: string
  readonly code: readonly number[]
}

/** MOV EAX, imm32. */
const eax = (value: number): number[] => [0xb8, ...little(BigInt(value), 4)]
/** PUSH imm32. */
const push = (value: number): number[] => [0x68, ...little(BigInt(value), 4)]
const selectors = { ring0: SELECTOR.data, ring3: SELECTOR.userData, system: SELECTOR.tss, absent: SELECTOR.absent, beyond: 0x70, local: SELECTOR.local }
const bySelector = (name: string, code: (selector: number) => readonly number[]): Snippet[] =>
  Object.entries(selectors).map(([what, selector]) => ({ name: `${name} of a ${what} selector`, code: code(selector) }))
/** LEA RCX, [RIP + n]; the address of what follows by n bytes. */
const leaRcx = (n: number): number[] => [0x48, 0x8d, 0x0d, ...little(BigInt(n), 4)]

export const SNIPPETS: readonly Snippet[] = [
  { name: 'SGDT', code: [0x0f, 0x01, 0x03] },
  { name: 'SIDT', code: [0x0f, 0x01, 0x0b] },
  { name: 'SLDT', code: [0x0f, 0x00, 0xc0] },
  { name: 'SMSW', code: [0x0f, 0x01, 0xe0] },
  { name: 'STR', code: [0x0f, 0x00, 0xc8] },
  { name: 'PUSHF', code: [0x9c] },
  { name: 'PUSHF after CLI', code: [0xfa, 0x9c] },
  { name: 'POPF that clears IF', code: [...push(0x2), 0x9d] },
  { name: 'POPF that sets IOPL and AC', code: [...push(0x4_3202), 0x9d, 0x9c] },
  { name: 'POPF of 16 bits', code: [0x66, 0x68, 0x02, 0x30, 0x66, 0x9d, 0x9c] },
  ...bySelector('LAR', (selector) => [...eax(selector), 0x0f, 0x02, 0xd0]),
  ...bySelector('LSL', (selector) => [...eax(selector), 0x0f, 0x03, 0xd0]),
  ...bySelector('VERR', (selector) => [...eax(selector), 0x0f, 0x00, 0xe0]),
  ...bySelector('VERW', (selector) => [...eax(selector), 0x0f, 0x00, 0xe8]),
  { name: 'MOV from CS', code: [0x8c, 0xc8] },
  { name: 'MOV from SS', code: [0x8c, 0xd0] },
  { name: 'MOV from DS to memory', code: [0x8c, 0x1b] },
  ...bySelector('MOV to DS', (selector) => [...eax(selector), 0x8e, 0xd8]),
  ...bySelector('MOV to SS', (selector) => [...eax(selector), 0x8e, 0xd0]),
  { name: 'PUSH FS', code: [0x0f, 0xa0] },
  ...bySelector('POP FS', (selector) => [...push(selector), 0x0f, 0xa1]),
  { name: 'INT n', code: [0xcd, COUNTING_VECTOR] },
  { name: 'INT n that only the kernel may use', code: [0xcd, 0x0d] },
  { name: 'INT3', code: [0xcc] },
  // The far pointer follows the code that uses it.
  ...[SELECTOR.code, SELECTOR.userCode, SELECTOR.conforming, SELECTOR.data].flatMap((selector) => [
    {
      name: `RETF to selector ${selector}`,
      code: [...leaRcx(8), ...push(selector), 0x51, 0x48, 0xcb],
    },
    // jmp over; pointer; lea rcx, [rip - 17]; jmp far [rcx]
    ...(['CALL', 'JMP'] as const).map((what) => ({
      name: `${what} FAR to selector ${selector}`,
      code: [0xeb, 0x06, ...little(BigInt.asUintN(32, KERNEL) + BigInt(CODE + 0x80), 4), ...little(BigInt(selector), 2), ...leaRcx(-13), 0xff, what === 'CALL' ? 0x19 : 0x29],
    })),
  ]),
  // SS, RSP, flags, CS and RIP on the stack, then IRET.
  ...[
    [SELECTOR.code, SELECTOR.data],
    [SELECTOR.userCode, SELECTOR.userData],
    [SELECTOR.userCode, SELECTOR.data],
  ].map(([cs, ss]) => ({
    name: `IRET to selectors ${cs} and ${ss}`,
    code: [0x48, 0x89, 0xe2, ...leaRcx(19), ...push(ss!), 0x52, ...push(0x2), ...push(cs!), 0x51, 0x48, 0xcf],
  })),
]
