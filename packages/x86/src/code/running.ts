/** Decodes the running instruction again, for exits that report its operands, which compiled and interpreted code no longer have. Cold. */
import type { Core } from '../state/core.ts'
import { fetchPage } from '../paging/access/fetch.ts'
import { rows } from '../rows/index.ts'
import { S } from '../state/layout.ts'
import { codeSizeOf, MODE } from '../state/mode.ts'
import { decode } from '../decode/decoder.ts'
import { createInstruction, type Instruction } from '../decode/instruction.ts'

const LONGEST = 15
const PAGE = 4096

/** Undefined if its bytes have changed since. */
export function runningInstruction(core: Core): Instruction | undefined {
  const mode = core.get32(S.mode)
  const codeSize = codeSizeOf(mode)
  const linear = core.recordRip() + core.get64(S.csBase)
  const bytes = new Uint8Array(LONGEST)
  const length = core.recordLength()
  for (let i = 0; i < length;) {
    const at = linear + BigInt(i)
    const high = codeSize === 64 ? Number(BigInt.asIntN(32, at >> 32n)) : 0
    const host = fetchPage(core, Number(BigInt.asIntN(32, at)), high)
    if (host < 0) return undefined
    const here = Math.min(length - i, PAGE - (host & (PAGE - 1)))
    bytes.set(core.u8.subarray(host, host + here), i)
    i += here
  }
  const instruction = createInstruction(rows[0]!)
  const result = decode(bytes, 0, length, { codeSize, protectedMode: (mode & MODE.protectedMode) !== 0 }, instruction)
  return result === 'ok' ? instruction : undefined
}
