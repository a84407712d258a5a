/** RDRAND, RDSEED. The processor's surroundings give the numbers (see ProcessorHost.random64). */
import { S } from '../state/layout.ts'
import type { Semantics } from './builder.ts'

/** Random numbers are always available: CF is set, the other flags are cleared. (SDM Vol. 2B, "RDRAND") */
const random: Semantics = (b, dst) => {
  b.system('random')
  dst!.write(b.truncate(b.slot(S.args), dst!.width))
  b.setFlag('cf', 1)
  b.setFlag('zf', 0)
  b.setFlag('of', 0)
  b.setFlag('af', 0)
  b.setSignParity(b.i32(0), b.i32(0))
}

export const randomNumbers: Record<string, Semantics> = { rdrand: random, rdseed: random }
