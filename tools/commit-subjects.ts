/**
 * Checks commit subjects: conventional, at most 72 characters, imperative, one change.
 * `node tools/commit-subjects.ts [RANGE]` (default main..HEAD), or `--message FILE` as a commit-msg hook calls it.
 */

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { root } from './workspace.ts'

const LONGEST = 72
const TYPES = ['feat', 'fix', 'refactor', 'perf', 'test', 'docs', 'build', 'ci', 'chore', 'revert']
const CONVENTIONAL = new RegExp(`^(?:${TYPES.join('|')})(?:\\([a-z0-9,-]+\\))?!?: (?<change>\\S.*)$`)
const WRITTEN_BY_GIT = /^(Merge|Revert|fixup!|squash!) /
/** Base forms that look like another form of a verb. */
const BASE_FORMS = new Set([
  'bring',
  'embed',
  'feed',
  'need',
  'seed',
  'shed',
  'speed',
  'ping',
  'string',
  'focus',
  'canvas',
  'bus',
  'bias',
])
const NO_VERB =
  /^(?:an?|the|this|that|what|which|when|where|how|who|all|each|every|no|not|some|more|in|on|of|for|with|from|by|it|one|two)$/

/** What is wrong with a subject; undefined: nothing. */
export function subjectProblem(subject: string): string | undefined {
  if (WRITTEN_BY_GIT.test(subject)) return undefined
  const change = CONVENTIONAL.exec(subject)?.groups?.['change']
  if (change === undefined) return `is not "type(scope): change"; types: ${TYPES.join(', ')}`
  if (subject.length > LONGEST) return `has ${subject.length} characters; at most ${LONGEST}`
  if (change.includes('; ')) return 'lists several changes; make a commit of each'
  if (change.endsWith('.')) return 'ends with a full stop'
  const first = change.split(/[\s,:]/)[0]!
  if (/^[A-Z][a-z]/.test(first)) return `begins with a capital: "${first}"`
  const isBase = BASE_FORMS.has(first) || /ss$/.test(first) || !/(?:ed|ing|s)$/.test(first)
  if (NO_VERB.test(first) || !isBase) return `is not in the imperative: "${first}"; write "add", "fix", "keep"`
  return undefined
}

if (import.meta.main) {
  const [range = 'main..HEAD', file] = process.argv.slice(2)
  const subjects =
    range === '--message'
      ? [readFileSync(file!, 'utf8').split('\n')[0]!]
      : execFileSync('git', ['log', '--no-merges', '--format=%s', range], { cwd: root, encoding: 'utf8' })
          .split('\n')
          .filter((subject) => subject !== '')
  for (const subject of subjects) {
    const problem = subjectProblem(subject)
    if (problem === undefined) continue
    console.error(`commit subject ${problem}\n  ${subject}`)
    process.exitCode = 1
  }
}
