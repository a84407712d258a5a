/** NOP, PAUSE, hints and the reserved-NOP space, in which hints of later processors hide. (SDM Vol. 2B, "NOP"; Vol. 2D, opcode maps.) */
import { hex } from './flags.ts'
import { row, type RowSource } from './row.ts'

/** 0F 18 to 0F 1F and 0F 0D: whatever no row claims is a NOP with a ModRM operand that is not accessed. */
const RESERVED = [0x0d, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f].map((opcode) =>
  row('NOP', 'Ev', `0F ${hex(opcode)} /r`, { reserved: true }),
)

export const nop: readonly RowSource[] = [
  // Not XCHG eAX,eAX: in 64-bit mode that would clear the upper half. With REX.B the byte is XCHG.
  row('NOP', '', '90'),
  row('PAUSE', '', 'F3 90', { exit: { reason: 'pause', when: 'pauseExiting' } }),
  ...RESERVED,
  row('PREFETCH', 'Mb', '0F 0D /0', { semantics: 'nop' }),
  row('PREFETCHW', 'Mb', '0F 0D /1', { semantics: 'nop', cpuid: 'prefetchw' }),
  row('PREFETCHWT1', 'Mb', '0F 0D /2', { semantics: 'nop', cpuid: 'prefetchwt1' }),
  row('PREFETCHNTA', 'Mb', '0F 18 /0', { semantics: 'nop', cpuid: 'sse' }),
  row('PREFETCHT0', 'Mb', '0F 18 /1', { semantics: 'nop', cpuid: 'sse' }),
  row('PREFETCHT1', 'Mb', '0F 18 /2', { semantics: 'nop', cpuid: 'sse' }),
  row('PREFETCHT2', 'Mb', '0F 18 /3', { semantics: 'nop', cpuid: 'sse' }),
  row('CLDEMOTE', 'Mb', 'NP 0F 1C /0', { semantics: 'nop', cpuid: 'cldemote' }),
  row('ENDBR64', '', 'F3 0F 1E FA', { semantics: 'nop' }),
  row('ENDBR32', '', 'F3 0F 1E FB', { semantics: 'nop' }),
]
