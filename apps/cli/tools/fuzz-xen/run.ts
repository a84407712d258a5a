/** Runs one seed: a domain from its start, so many calls, each judged. */

import { CallMaker, Chance, type MadeCall } from './calls.ts'
import { FuzzedDomain } from './domain.ts'

/** Calls after which a domain begins anew: by then it has given away much of what it needs. */
const LIFE = 300
/** Of a vCPU, between two pieces of another's call. */
const MOST_BETWEEN = 3

export interface Round {
  readonly calls: number
  readonly refused: number
  readonly continued: number
  /** What is wrong, with the call that made it so. */
  readonly fault: string | undefined
}

const domain = new FuzzedDomain()

export function fuzzRound(seed: number): Round {
  const chance = new Chance(seed)
  const maker = new CallMaker(domain, chance)
  const counts = { calls: 0, refused: 0, continued: 0 }
  domain.begin()
  const judge = (call: MadeCall): string | undefined => {
    const faults = domain.faults()
    return faults.length === 0
      ? undefined
      : `after call ${counts.calls}, number ${call.number} (${call.args.map((arg) => `0x${arg.toString(16)}`).join(', ')}): ${faults.slice(0, 3).join('; ')}`
  }

  /** One call to its end; between its pieces, calls of the other vCPU. */
  const make = (vcpu: number, depth: number): string | undefined => {
    if (chance.is(0.3)) maker.poke(vcpu)
    const call = maker.next()
    if (!maker.write(vcpu)) return undefined
    const { registers } = domain.vcpus[vcpu]!
    const set = (args: readonly bigint[]): void =>
      void Object.assign(registers, {
        ...{ rax: BigInt(call.number), rdi: args[0] ?? 0n, rsi: args[1] ?? 0n, rdx: args[2] ?? 0n },
        ...{ r10: args[3] ?? 0n, r8: args[4] ?? 0n, r9: 0n },
      })
    set(call.args.map((arg) => BigInt.asUintN(64, arg)))
    for (let piece = 0; ; piece++) {
      domain.repeats = false
      domain.abi.hypercall(domain.vcpus[vcpu]!)
      counts.calls++
      const fault = judge(call)
      if (fault) return fault
      if (!domain.repeats || piece > 8) break
      counts.continued++
      const { rdi, rsi, rdx, r10, r8 } = registers
      for (let n = depth < 2 ? chance.below(MOST_BETWEEN) : 0; n > 0; n--) {
        const other = make(1 - vcpu, depth + 1)
        if (other) return other
      }
      set([rdi, rsi, rdx, r10, r8])
    }
    if (BigInt.asIntN(64, registers.rax) < 0n) counts.refused++
    return undefined
  }

  let fault: string | undefined
  for (let n = 0; n < LIFE && !fault; n++) fault = make(chance.below(2), 0)
  if (!fault) fault = domain.leaks().at(0)
  domain.crashed = undefined
  return { ...counts, fault }
}
