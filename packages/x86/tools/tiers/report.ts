/** Programs that fail: cut down to what it takes, and printed. */
import { decode } from '../../src/decode/decoder.ts'
import { disassemble } from '../../src/decode/disassemble.ts'
import { createInstruction } from '../../src/decode/instruction.ts'
import { rows } from '../../src/rows/index.ts'
import { layOut, UD2, type Program } from './program.ts'

/** How long one failure may be worked on, in ms. */
const PATIENCE = 20_000

/** Leaves out one item after another, and whole chunks, as long as it still fails; not the UD2s, behind which anything may lie. */
export function minimise<P extends Program>(program: P, fails: (program: P) => unknown): P {
  let best = program
  const end = performance.now() + PATIENCE
  for (let size = Math.ceil(program.items.length / 2); size >= 1; size = size > 1 ? Math.ceil(size / 2) : 0) {
    for (let at = 0; at < best.items.length; at += size) {
      const items = best.items.map((item, n) => (n >= at && n < at + size && item?.bytes !== UD2 ? undefined : item))
      if (items.every((item, n) => item === best.items[n])) continue
      const candidate = { ...best, items }
      if (performance.now() > end) return best
      if (fails(candidate)) best = candidate
    }
  }
  return best
}

/** One line an instruction. */
export function print(program: Program): string {
  const { bytes, addresses } = layOut(program)
  const instruction = createInstruction(rows[0]!)
  const lines: string[] = []
  for (const [n, item] of program.items.entries()) {
    if (!item) continue
    const at = addresses[n]! - program.start
    const result = decode(bytes, at, bytes.length - at, { codeSize: program.codeSize, protectedMode: true }, instruction)
    const text = result === 'ok' ? disassemble(instruction, BigInt(addresses[n]!)) : `(${result})`
    const chunk = program.chunks.indexOf(n)
    lines.push(`${chunk >= 0 ? `chunk ${chunk}:\n` : ''}  ${addresses[n]!.toString(16)}: ${Buffer.from(bytes.subarray(at, at + item.bytes.length)).toString('hex').padEnd(24)} ${text}`)
  }
  return lines.join('\n')
}

export const circumstances = ({ codeSize, user, alignment, stack16 }: Program): string =>
  `${codeSize}-bit, ring ${user ? 3 : 0}${alignment ? ', alignment checks' : ''}${stack16 ? ', 16-bit stack' : ''}`
