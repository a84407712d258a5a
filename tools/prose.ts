/** Refuses paraphrases of terms that docs/glossary.md defines (tools/prose.json), in documents and in comments: `node tools/prose.ts`. */

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './workspace.ts'

export interface Finding {
  readonly line: number
  readonly phrase: string
  readonly use: string
}

const RULES = (
  JSON.parse(readFileSync(join(root, 'tools/prose.json'), 'utf8')) as { phrase: string; use: string }[]
).map(({ phrase, use }) => ({ pattern: new RegExp(`\\b(?:${phrase})\\b`, 'gi'), use }))
/** Documents and sources held to the glossary. Records of what was run keep their words. */
const CHECKED =
  /^(README|CONTRIBUTING)\.md$|^docs\/(ARCHITECTURE|glossary)\.md$|^(packages|apps)\/[\w-]+\/README\.md$|^(packages|apps)\/[\w-]+\/src\/.*\.ts$/
const COMMENT = /\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*/g

const blank = (text: string): string => text.replaceAll(/[^\n]/g, ' ')
/** All but prose becomes blanks, so that line numbers stay. */
function prose(file: string, text: string): string {
  if (file.endsWith('.md')) return text.replaceAll(/```[\s\S]*?```|`[^`\n]*`|\]\([^)\n]*\)/g, blank)
  let out = ''
  let at = 0
  for (const match of text.matchAll(COMMENT)) {
    out += blank(text.slice(at, match.index)) + match[0].replaceAll(/`[^`\n]*`/g, blank)
    at = match.index + match[0].length
  }
  return out
}

export function findParaphrases(file: string, text: string): Finding[] {
  const checked = prose(file, text)
  return RULES.flatMap(({ pattern, use }) =>
    [...checked.matchAll(pattern)].map(({ 0: phrase, index }) => ({
      line: checked.slice(0, index).split('\n').length,
      phrase,
      use,
    })),
  )
}

if (import.meta.main) {
  const files = execFileSync('git', ['ls-files', '*.md', '*.ts'], { cwd: root, encoding: 'utf8' }).split('\n')
  let found = 0
  for (const file of files.filter((name) => CHECKED.test(name) && !name.endsWith('.test.ts'))) {
    for (const { line, phrase, use } of findParaphrases(file, readFileSync(join(root, file), 'utf8'))) {
      console.error(`${file}:${line}: "${phrase}": write ${use} (docs/glossary.md)`)
      found++
    }
  }
  process.exitCode = found > 0 ? 1 : 0
}
