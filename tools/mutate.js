/*
 * Mutation testing: changes a package's code in small ways, one at a time, and shows which changes its tests do not notice.
 *
 *     npm run mutate -- mmu [src/ept] [--all] [--concurrency 2]
 *
 * Incremental: what neither a mutant's code nor its tests have changed since the last time is not run again; `--all` runs all. Scores (per cent of the
 * mutants that a test noticed, by folder) are kept in mutation-scores.json: a lower one fails, a higher one is written down.
 */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Stryker } from '@stryker-mutator/core'

const root = fileURLToPath(new URL('..', import.meta.url))

const SCORES = join(root, 'tools/mutation-scores.json')

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { all: { type: 'boolean' }, concurrency: { type: 'string' } },
})
const [name, path = 'src'] = positionals
const folder = ['packages', 'apps'].map((kind) => `${kind}/${name ?? ''}`).find((at) => name && existsSync(join(root, at, path)))
if (!folder) {
  console.error(`there is no ${path} in a package '${name ?? ''}'; npm run mutate -- PACKAGE [PATH], PATH within the package`)
  process.exit(2)
}
const cache = join(root, 'node_modules/.cache/stryker')
mkdirSync(cache, { recursive: true })

const mutants = await new Stryker({
  testRunner: 'vitest',
  plugins: ['@stryker-mutator/vitest-runner'],
  vitest: { configFile: `${folder}/vitest.config.ts`, dir: folder },
  mutate: path.endsWith('.ts')
    ? [`${folder}/${path}`]
    : [`${folder}/${path}/**/*.ts`, '!**/*.test.ts', '!**/*.test.support.ts', '!**/testing/**'],
  // The sandbox, not below node_modules where no tests are looked for, has the sources; other packages are found by the links of node_modules, unchanged.
  ignorePatterns: ['**/dist', '**/bundle', '.nx', '.changeset', 'bench', 'docs', 'examples'],
  tempDirName: '.stryker-tmp',
  incremental: true,
  incrementalFile: join(cache, `${name}.json`),
  force: values.all === true,
  concurrency: Number(values.concurrency ?? 1),
  coverageAnalysis: 'perTest',
  timeoutFactor: 3,
  reporters: ['progress-append-only'],
  disableTypeChecks: false,
  allowEmpty: true,
}).runMutationTest()

const NOTICED = new Set(['Killed', 'Timeout'])
const MISSED = new Set(['Survived', 'NoCoverage'])
const counts = new Map()
for (const { fileName, location, mutatorName, replacement, status } of mutants) {
  if (!NOTICED.has(status) && !MISSED.has(status)) continue
  const file = fileName.slice(fileName.lastIndexOf(folder))
  const count = counts.get(dirname(file)) ?? { noticed: 0, all: 0 }
  counts.set(dirname(file), count)
  count.all++
  if (NOTICED.has(status)) count.noticed++
  else console.log(`${file}:${location.start.line}:${location.start.column} ${status === 'Survived' ? mutatorName : 'no test'}: ${(replacement ?? '').replaceAll(/\s+/g, ' ').slice(0, 100)}`)
}

const scores = existsSync(SCORES) ? JSON.parse(readFileSync(SCORES, 'utf8')) : {}
console.log('')
for (const [at, { noticed, all }] of [...counts].toSorted()) {
  const score = Math.floor((1000 * noticed) / all) / 10
  const before = scores[at]
  console.log(`${at}: ${score} % of ${all}${before === undefined ? '' : `, before ${before} %`}`)
  // A part of a folder says nothing of all of it.
  if (path.endsWith('.ts')) continue
  if (before !== undefined && score < before) process.exitCode = 1
  else scores[at] = score
}
writeFileSync(SCORES, `${JSON.stringify(Object.fromEntries(Object.entries(scores).toSorted()), undefined, 2)}\n`)
