/** Machine code for tests, from assembly that stands in the test: `tools/assemble.ts` records it, so that a test needs no assembler. */
import { CODE } from './assembled.ts'

/** Bytes of Intel-syntax assembly (GNU as) for a code size. `;` separates instructions. */
export function asm(bits: 16 | 32 | 64, source: string): number[] {
  const hex = CODE[`${bits} ${source}`]
  if (hex === undefined) throw new Error(`not assembled yet: '${source}' (run: node tools/assemble.ts)`)
  return hex.match(/../g)?.map((byte) => parseInt(byte, 16)) ?? []
}
