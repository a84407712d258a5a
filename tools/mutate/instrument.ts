/** A package's sources with every mutant in them, each behind a switch. */
import { readFileSync } from 'node:fs'
import { Instrumenter } from '@stryker-mutator/instrumenter'

export interface Mutant {
  readonly id: string
  readonly file: string
  /** Counted from 1. */
  readonly line: number
  readonly column: number
  readonly kind: string
  readonly replacement: string
}
export interface Instrumented {
  /** Of those that are not excluded by a comment. */
  readonly mutants: readonly Mutant[]
  /** By path. */
  readonly sources: ReadonlyMap<string, string>
}

/** Not changed: strings, which are messages, or words that the compiler checks. */
const EXCLUDED = ['StringLiteral']
const silent = (): void => {}
const LOGGER = { debug: silent, info: silent, warn: silent, error: silent, trace: silent, fatal: silent, isDebugEnabled: () => false, isTraceEnabled: () => false, isInfoEnabled: () => false, isWarnEnabled: () => false, isErrorEnabled: () => false, isFatalEnabled: () => false }

export async function instrument(paths: readonly string[]): Promise<Instrumented> {
  const files = paths.map((name) => ({ name, mutate: true, content: readFileSync(name, 'utf8') }))
  const result = await new Instrumenter(LOGGER).instrument(files, { plugins: null, excludedMutations: EXCLUDED, ignorers: [], noHeader: false } as never)
  const mutants = result.mutants
    .filter(({ status }) => status !== 'Ignored')
    .map(({ id, fileName, location, mutatorName, replacement }) => ({
      id, file: fileName, line: location.start.line + 1, column: location.start.column + 1, kind: mutatorName, replacement: replacement.replaceAll(/\s+/g, ' '),
    }))
  return { mutants, sources: new Map(result.files.map(({ name, content }) => [name, content])) }
}
