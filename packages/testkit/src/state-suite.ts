/** Reset, save and restore, judged by what a guest then sees: the same script on two subjects, step by step. Independent of what the subjects are. */

import { checkSame, createRandom } from './check.ts'
import type { TestRegistrar } from './check.ts'

/** A part, or several that belong together, with their surroundings. */
export interface StateSubject {
  /**
   * Does one thing that a guest, a peer or time does, as `random` chooses, and gives what can be seen from outside, with what was done. `peers` false:
   * no peer does anything, as what it sends may wait on its own side while a machine is reset.
   */
  step(random: (below: number) => number, peers: boolean): unknown
  /** All requests of the last step are over. */
  settle?(): Promise<unknown>
  reset(): void
  save(): unknown
  restore(saved: unknown): void
  /** Takes over what is not the part's: time, memory. */
  surround(other: this): void
}

export interface StateSuiteOptions {
  /** Scripts of this suite, each from a seed. */
  readonly rounds?: number
  readonly steps?: number
}

/** `create` makes a new subject each time, as it is at power-up. */
export function testState<S extends StateSubject>(
  name: string,
  create: () => S | Promise<S>,
  it: TestRegistrar,
  { rounds = 8, steps = 400 }: StateSuiteOptions = {},
): void {
  it(`${name}: after a reset nothing tells it from a new one`, async () => {
    for (let round = 1; round <= rounds; round++) {
      const [used, fresh] = [await create(), await create()]
      await run(used, 2 * round, steps, false)
      used.reset()
      fresh.reset()
      fresh.surround(used)
      await compare(used, fresh, 2 * round + 1, steps, `script ${round} after a reset`)
    }
  })

  it(`${name}: after it was restored it answers as if it had gone on`, async () => {
    for (let round = 1; round <= rounds; round++) {
      const [one, other] = [await create(), await create()]
      await run(one, 3 * round, 1 + createRandom(round)(steps), true)
      // What was there before does not matter.
      if (round % 2) await run(other, 3 * round + 1, steps, true)
      other.surround(one)
      other.restore(structuredClone(one.save()))
      await compare(one, other, 3 * round + 2, steps, `script ${round} after it was restored`)
    }
  })
}

async function run(subject: StateSubject, seed: number, steps: number, peers: boolean): Promise<void> {
  const random = createRandom(seed * 0x9e3779b9)
  for (let step = 0; step < steps; step++) {
    subject.step(random, peers)
    await subject.settle?.()
  }
}

async function compare(
  one: StateSubject,
  other: StateSubject,
  seed: number,
  steps: number,
  what: string,
): Promise<void> {
  const randoms = [createRandom(seed * 0x9e3779b9), createRandom(seed * 0x9e3779b9)] as const
  for (let step = 0; step < steps; step++) {
    const wanted = one.step(randoms[0], true)
    const found = other.step(randoms[1], true)
    await one.settle?.()
    await other.settle?.()
    checkSame(found, wanted, `${what}, step ${step}`)
  }
}
