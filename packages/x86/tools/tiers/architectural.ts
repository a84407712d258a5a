/** What a program can tell of the processor: every architectural part of the vCPU block, by name. */
import type { Core } from '../../src/state/core.ts'
import { readFlags } from '../../src/state/flags.ts'
import { gpr, S, SEG, SEGMENT, segment } from '../../src/state/layout.ts'

export interface Part {
  readonly name: string
  readonly read: (core: Core) => bigint | number
  /** Where it lies in the vCPU block as it is; undefined where it must be worked out. */
  readonly slot?: { readonly offset: number; readonly bytes: 4 | 8 }
}
const wide = (name: string, offset: number): Part => ({ name, read: (core) => core.get64(offset), slot: { offset, bytes: 8 } })
const word = (name: string, offset: number): Part => ({ name, read: (core) => core.get32(offset) >>> 0, slot: { offset, bytes: 4 } })
const GPR_NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')

/** Everything but the interrupt shadow, which may outlast its instruction: who asks steps over it. */
export const STATE: readonly Part[] = [
  ...GPR_NAMES.map((name, n) => wide(name, gpr(n))),
  wide('rip', S.rip),
  { name: 'rflags', read: readFlags },
  ...Object.entries(SEGMENT).flatMap(([name, n]) => [
    wide(`${name}.base`, segment(n) + SEG.base), word(`${name}.limit`, segment(n) + SEG.limit),
    word(`${name}.selector`, segment(n) + SEG.selector), word(`${name}.attributes`, segment(n) + SEG.attributes),
    wide(`${name}.readBound`, segment(n) + SEG.readBound), wide(`${name}.writeBound`, segment(n) + SEG.writeBound),
  ]),
  ...Array.from({ length: 32 }, (_, n) => wide(`xmm${n >> 1}[${n & 1}]`, S.xmm + 8 * n)),
  ...Array.from({ length: 16 }, (_, n) => wide(`fpr${n >> 1}${n & 1 ? ' exponent' : ''}`, S.fpr + 8 * n)),
  ...(['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'xcr0', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7', 'star', 'lstar', 'cstar', 'fmask', 'kernelGsBase', 'sysenterCs', 'sysenterEsp', 'sysenterEip', 'pat', 'tscAux', 'apicBase', 'miscEnable', 'tscOffset', 'fpuIp', 'fpuDp'] as const).map((name) => wide(name, S[name])),
  ...(['cpl', 'mode', 'fpuControl', 'fpuStatus', 'fpuTag', 'fpuOpcode', 'fpuSelectors', 'mxcsr', 'lazyKind', 'nmiBlocked'] as const).map((name) => word(name, S[name])),
  { name: 'pending debug exceptions', read: (core) => core.pendingDebug },
]

/** Words of the vCPU block, by index, that hold the parts that lie there as they are. */
export const STATE_WORDS: readonly number[] = STATE.flatMap(({ slot }) => (slot ? (slot.bytes === 8 ? [slot.offset >>> 2, (slot.offset >>> 2) + 1] : [slot.offset >>> 2]) : []))
