/** What becomes of each instruction of 64-bit kernel code. */

import { BASE_RIP } from '@nonroot/x86'
import type { Instruction } from '@nonroot/x86'
import { showsPrivilege } from './shortcuts.ts'

export type Treatment =
  /** Copied. */
  | 'same'
  /** Copied, its RIP-relative operand made absolute. */
  | 'absolute'
  /** The monitor carries it out; the code after it is translated with it. */
  | 'callOut'
  /** The monitor carries it out; what follows is elsewhere. */
  | 'leave'
  | 'conditional'
  /** LOOP, JRCXZ: no form with a longer displacement. */
  | 'counted'
  | 'jump'
  | 'call'
  | 'return'
  | 'indirect'

/** Exits that leave nothing to the monitor: the processor's answer is the virtual CPU's. */
const OWN_ANSWER = new Set(['rdtsc', 'rdtscp', 'pause', 'rdrand', 'rdseed'])
/** They raise #GP at CPL 1, as IOPL is 0 there. */
const INTERRUPT_FLAG = new Set(['CLI', 'STI'])
const LONGEST = 15

export function treatmentOf(instruction: Instruction): Treatment {
  const { row, addressSize, opcode } = instruction
  const { flow, sensitive, cpl, exit, shadow, unit } = row.attributes
  const isOwn =
    (sensitive === true && (row.semantics !== 'movFromSegment' || showsPrivilege(instruction))) ||
    cpl === 0 ||
    shadow === true ||
    // It leaves its own address for FSTENV and others to show.
    unit === 'x87' ||
    unit === 'wait' ||
    INTERRUPT_FLAG.has(row.mnemonic) ||
    (exit !== undefined && !OWN_ANSWER.has(exit.reason))
  switch (flow) {
    case 'far':
    case 'trap':
      return 'leave'
    case 'halt':
    case 'serialise':
      return 'callOut'
    case 'indirectJump':
    case 'indirectCall':
      return 'indirect'
    case 'return':
      return 'return'
    case 'jump':
      return 'jump'
    case 'call':
      return 'call'
    case 'conditional':
      if (opcode === 0xc7) return 'leave' // XBEGIN
      return (opcode & 0xf0) !== 0xe0 ? 'conditional' : addressSize === 64 ? 'counted' : 'leave'
    case undefined:
      break
  }
  if (isOwn) return 'callOut'
  if (instruction.base !== BASE_RIP || !instruction.isMemory) return 'same'
  return addressSize === 64 && instruction.length < LONGEST ? 'absolute' : 'callOut'
}
