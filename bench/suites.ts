/** What there is to measure: guestbench's mechanisms and the real programs, each with its guest, its tests and what is known to be right. */
import { benchGuest } from './guest.ts'
import { nativeChecks } from './machine.ts'
import type { Guest } from './packaged-guest.ts'
import { programGuest } from './program-guest.ts'
import { PROGRAMS } from './programs.ts'

export interface PreparedSuite {
  readonly guest: Guest
  /** As QEMU's -m and our --memory have it. */
  readonly memory: string
  /** Empty: all of them. */
  readonly tests: readonly string[]
  /** By test; where there is none the first machine's is taken to be right. */
  readonly checks: Readonly<Record<string, string>>
}

type Say = (text: string) => void

/** By name. Undefined where a suite has none of the tests that are asked for. */
export const SUITES: Readonly<
  Record<string, (wanted: readonly string[], say: Say) => Promise<PreparedSuite | undefined>>
> = {
  mechanisms: async (wanted, say) => {
    const names = new Set<string>(PROGRAMS.map(({ name }) => name))
    const tests = wanted.filter((test) => !names.has(test))
    if (wanted.length && !tests.length) return undefined
    const guest = await benchGuest(say)
    const checks = nativeChecks(guest.guestbench, tests)
    if (!Object.keys(checks).length)
      say('no checksums: guestbench does not run on this computer, so machines are only compared with the first')
    return { guest, memory: '512M', tests, checks }
  },
  programs: async (wanted, say) => {
    const tests = PROGRAMS.map(({ name }) => name).filter((name) => wanted.includes(name))
    if (wanted.length && !tests.length) return undefined
    // The root is in memory: the guest needs room for it twice while it is unpacked.
    return { guest: await programGuest(say), memory: '1G', tests, checks: {} }
  },
}
