/** What the driver (../mutate.ts) tells a worker (runner.ts), and what that answers: one line of JSON for each event. */

/** Environment variables with the paths of the two files. */
export const PLAN = 'NONROOT_MUTATION_PLAN'
export const EVENTS = 'NONROOT_MUTATION_EVENTS'

export type Plan =
  /** Which mutants each test comes by. */
  | { readonly mode: 'cover' }
  /** By test: the mutants to try, and after how many uses of its place each has gone astray. */
  | { readonly mode: 'mutants'; readonly tests: Readonly<Record<string, readonly (readonly [id: string, hitLimit: number])[]>> }
  /** A mutant in what a module does when it is loaded: active from the beginning. */
  | { readonly mode: 'static'; readonly mutant: string; readonly skip: readonly string[] }

export type Event =
  | { readonly type: 'worker'; readonly pid: number }
  /** A test without mutants. `seconds`: of the processor. */
  | { readonly type: 'covered'; readonly test: string; readonly name: string; readonly passed: boolean; readonly seconds: number; readonly hits: Readonly<Record<string, number>> }
  /** What loading a file's modules, its describe blocks and its beforeAll come by. */
  | { readonly type: 'loaded'; readonly file: string; readonly hits: Readonly<Record<string, number>> }
  | { readonly type: 'started'; readonly mutant: string; readonly test: string }
  | { readonly type: 'noticed' | 'missed'; readonly mutant: string; readonly test: string }
  /** The test fails without a mutant now: something is left of those before. `unsure`: that mutant's result does not count. */
  | { readonly type: 'spoilt'; readonly unsure?: string; readonly test: string }
