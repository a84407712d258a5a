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
  /** As the instrumenter counts: lines and columns from 0. */
  readonly range: { readonly start: Place; readonly end: Place }
}
interface Place {
  readonly line: number
  readonly column: number
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
  return await place(new Map(paths.map((path) => [path, true])))
}

/** Only these of what `instrument` gave: the other code stays as it is, and is as quick. */
export async function instrumentOnly(chosen: readonly Mutant[]): Promise<Instrumented> {
  const byFile = Map.groupBy(chosen, ({ file }) => file)
  const { mutants, sources } = await place(new Map([...byFile].map(([file, those]) => [file, those.map(({ range }) => range)])))
  const wanted = new Set(chosen.map(identity))
  return { mutants: mutants.filter((mutant) => wanted.has(identity(mutant))), sources }
}
const identity = ({ file, line, column, kind, replacement }: Mutant): string => [file, line, column, kind, replacement].join('\0')

/** By path: the ranges in which to change something, or true for all of it. */
async function place(ranges: ReadonlyMap<string, true | readonly Mutant['range'][]>): Promise<Instrumented> {
  const files = [...ranges].map(([name, mutate]) => ({ name, mutate, content: readFileSync(name, 'utf8') }))
  const result = await new Instrumenter(LOGGER).instrument(files as never, { plugins: null, excludedMutations: EXCLUDED, ignorers: [], noHeader: false } as never)
  const mutants = result.mutants
    .filter(({ status }) => status !== 'Ignored')
    .map(({ id, fileName, location, mutatorName, replacement }) => ({
      id, file: fileName, line: location.start.line + 1, column: location.start.column + 1, kind: mutatorName, replacement: replacement.replaceAll(/\s+/g, ' '), range: location,
    }))
  return { mutants, sources: new Map(result.files.map(({ name, content }) => [name, content])) }
}
