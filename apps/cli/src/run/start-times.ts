/** The time between the start of the process and the guest's first instruction, in parts. Each thread records its own. */

/** Moments on the way, in this order. Those of different threads overlap in part: what counts is when the last was done. */
const STEPS = {
  node: 'Node was started',
  program: 'the command was loaded, the configuration read, the image found',
  thread: "the VM's thread and its code were loaded",
  stack: 'the plugins of the stack were loaded and checked',
  image: 'the host was made, kernel and initrd read',
  machine: 'the machine was made, the image placed',
  guest: 'the first code was decoded and its handlers compiled',
} as const
export type StartStep = keyof typeof STEPS

/** Milliseconds since the epoch by step, exact to microseconds: the one clock that all threads and processes share. */
export type StartMarks = Partial<Record<StartStep, number>>

export const now = (): number => performance.timeOrigin + performance.now()

export interface StartTimes {
  /** From the start of the process to the guest's first instruction. */
  readonly startMs: number
  /** What each step added, by its name. */
  readonly startParts: Readonly<Partial<Record<StartStep, number>>>
}

const BEGAN = 'NONROOT_STARTED'
/** Of this thread, and when the process began. */
type Began = StartMarks & { began?: number }
const marks: Began = {}

/** The command's first code runs. Where one process starts another to do its work, the first one's start counts. */
export function markStart(): void {
  const given = Number(process.env[BEGAN])
  delete process.env[BEGAN]
  marks.began = given > 0 ? given : performance.timeOrigin
  marks.node = now()
}

/** A step of this thread is done. */
export function mark(step: StartStep): void {
  marks[step] = now()
}

/** With the marks of the VM's thread. Undefined: the guest did not get so far. */
export function startTimes(others: StartMarks, own: Began = marks): StartTimes | undefined {
  if (others.guest === undefined) return undefined
  const began = own.began ?? performance.timeOrigin
  const round = (ms: number): number => Math.round(ms * 100) / 100
  const startParts: Partial<Record<StartStep, number>> = {}
  let last = began
  for (const step of Object.keys(STEPS) as StartStep[]) {
    const at = Math.max(others[step] ?? own[step] ?? last, last)
    startParts[step] = round(at - last)
    last = at
  }
  return { startMs: round(last - began), startParts }
}

/** A table for a person. */
export function startText({ startMs, startParts }: StartTimes): string {
  const row = (name: string, ms: number, help: string): string =>
    `${name.padEnd(28)}${`${ms.toFixed(1)} ms`.padStart(14)}   ${help}\n`
  const parts = Object.entries(STEPS).map(([step, help]) => row(`  ${step}`, startParts[step as StartStep] ?? 0, help))
  return row('start', startMs, "from the start of the process to the guest's first instruction") + parts.join('')
}
