/** Makes a case that differs as plain as it can be while it still differs: state is zeroed piece by piece. */
import { Batch, FX, MIDDLE_SIZE, STATE, TAIL_SIZE } from './batch.ts'
import { describe, differences } from './compare.ts'
import type { Encoded } from './encode.ts'
import type { Machine } from './machine.ts'

/** Pieces of a state: offset and length in bytes. */
const PIECES: readonly (readonly [number, number])[] = [
  ...Array.from({ length: 16 }, (_, n) => [8 * n, 8] as const),
  ...Array.from({ length: (MIDDLE_SIZE + TAIL_SIZE) / 16 }, (_, n) => [STATE.memory + 16 * n, 16] as const),
  ...Array.from({ length: 8 }, (_, n) => [STATE.fx + FX.st + 16 * n, 16] as const),
  ...Array.from({ length: 32 }, (_, n) => [STATE.fx + FX.xmm + 8 * n, 8] as const),
]
/** How often a case is run again that differed once: what never repeats is the host's affair. */
const REPEATS = 3
const PLAIN_FLAGS = 0x202
const PLAIN_MXCSR = 0x1f80

/** The case in full after that; undefined where it does not differ when it is run again. `runNatively` fills final states. */
export function minimise(
  encoded: Encoded, slot: number, state: Uint8Array, flags: number, codeSize: 32 | 64, machine: Machine, runNatively: (batch: Batch) => void,
): string | undefined {
  const native = new Batch(1, 1, codeSize)
  const ours = new Batch(1, 1, codeSize)
  native.setInstruction(0, encoded.code, flags, slot)
  const input = native.inputOf(0, 0), output = native.outputOf(0, 0)
  const found = (all: boolean): string[] => {
    native.bytes.fill(0, output, output + STATE.size)
    runNatively(native)
    machine.run(native, 0, encoded.address, ours)
    return differences(encoded, native, ours, input, output, flags, all)
  }
  const attempt = (change: () => void): void => {
    const before = native.bytes.slice(input, input + STATE.size)
    change()
    if (!found(false).length) native.bytes.set(before, input)
  }
  native.bytes.set(state, input)
  if (!Array.from({ length: REPEATS }, () => found(false)).some(({ length }) => length)) return undefined
  for (const [at, length] of PIECES) attempt(() => native.bytes.fill(0, input + at, input + at + length))
  attempt(() => (native.u32[(input + STATE.rflags) >>> 2] = PLAIN_FLAGS))
  attempt(() => (native.u32[(input + STATE.fx + FX.mxcsr) >>> 2] = PLAIN_MXCSR))
  return describe(encoded, native, ours, input, output, found(true))
}
