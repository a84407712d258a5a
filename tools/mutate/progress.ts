/** What is known of a package's mutants from runs that were interrupted. It holds as long as the sources stay, and what was missed as long as the tests do. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

interface Kept {
  readonly sources: string
  readonly tests: string
  readonly noticed: readonly string[]
  /** By test: mutants that it does not notice. */
  readonly missed: Readonly<Record<string, readonly string[]>>
}

export class Progress {
  readonly noticed: Set<string>
  readonly #missed: Map<string, Set<string>>
  readonly #path: string
  readonly #sources: string
  readonly #tests: string

  constructor(path: string, sources: Iterable<string>, testFiles: readonly string[]) {
    this.#path = path
    this.#sources = digest(sources)
    this.#tests = digest(testFiles.map((file) => readFileSync(file, 'utf8')))
    const kept = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Kept) : undefined
    const isSame = kept?.sources === this.#sources
    this.noticed = new Set(isSame ? kept.noticed : [])
    this.#missed = new Map(isSame && kept.tests === this.#tests ? Object.entries(kept.missed).map(([test, ids]) => [test, new Set(ids)]) : [])
  }

  miss(test: string, mutant: string): void {
    const ids = this.#missed.get(test)
    if (ids) ids.add(mutant)
    else this.#missed.set(test, new Set([mutant]))
  }
  isMissed(test: string, mutant: string): boolean {
    return this.#missed.get(test)?.has(mutant) ?? false
  }

  save(): void {
    mkdirSync(dirname(this.#path), { recursive: true })
    const kept: Kept = { sources: this.#sources, tests: this.#tests, noticed: [...this.noticed], missed: Object.fromEntries([...this.#missed].map(([test, ids]) => [test, [...ids]])) }
    writeFileSync(this.#path, JSON.stringify(kept))
  }
}

const digest = (texts: Iterable<string>): string => [...texts].reduce((hash, text) => hash.update(text), createHash('sha256')).digest('hex')
