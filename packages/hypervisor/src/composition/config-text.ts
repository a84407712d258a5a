/** Parses YAML and JSON text into a tree with positions. Independent of schemas. */

import { NonrootError } from '@nonroot/contracts'
import type { SourceLocation } from '@nonroot/contracts'
import { isAlias, isMap, isPair, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'
import type { Document, Node } from 'yaml'
import type { ConfigNode } from './config-tree.ts'
import { fromValue } from './config-tree.ts'

/** Aliases can expand exponentially (a "billion laughs"): a configuration has fewer nodes than this. */
const NODE_LIMIT = 20_000

/** Throws all syntax errors as one. */
export function parseConfigText(text: string, file: string, language: 'yaml' | 'json'): ConfigNode {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, strict: true, uniqueKeys: true })
  const at = (offset: number): SourceLocation => {
    const { line, col } = lines.linePos(Math.min(offset, text.length))
    return { file, line: Math.max(line, 1), column: Math.max(col, 1) }
  }
  if (language === 'json') checkJson(text, file, at)
  const problems = [...document.errors, ...document.warnings]
  if (problems.length) {
    throw syntaxError(
      file,
      problems.map((problem) => ({ message: firstSentence(problem.message), location: at(problem.pos[0]) })),
    )
  }
  if (document.contents === null) {
    throw syntaxError(file, [
      { message: 'the file is empty', location: { file }, remedy: 'start with apiVersion: nonroot/v1' },
    ])
  }
  return convert(document.contents, document, at)
}

/** The value of `--set key=VALUE`, parsed as YAML: `true`, `4` and `[1, 2]` have their types. */
export function parseValueText(text: string, at: SourceLocation): ConfigNode {
  const document = parseDocument(text, { prettyErrors: false, strict: true })
  const problem = document.errors[0]
  if (problem) throw syntaxError(at.file, [{ message: firstSentence(problem.message), location: at }])
  return fromValue(document.toJS() as unknown, at)
}

interface Problem {
  readonly message: string
  readonly location: SourceLocation
  readonly remedy?: string
}

function syntaxError(file: string, problems: readonly Problem[]): NonrootError {
  const errors = problems.map((problem) => new NonrootError({ code: 'config.syntax', thing: file, ...problem }))
  return errors.length === 1
    ? errors[0]!
    : new NonrootError({ code: 'config.syntax', message: `${errors.length} errors in ${file}`, thing: file, errors })
}

const firstSentence = (message: string): string => message.split('\n')[0]!.replace(/\s+at line .*$/, '')

/** YAML allows more than JSON (comments, bare words): .json files must be JSON. */
function checkJson(text: string, file: string, at: (offset: number) => SourceLocation): void {
  if (text.trim() === '') return
  try {
    JSON.parse(text)
  } catch (error) {
    const message = (error as Error).message
    const offset = Number(/at position (\d+)/.exec(message)?.[1] ?? text.length)
    const plain = message.replace(/ in JSON at position.*$/, '').replace(/,? ?"?\.\.\..*is not valid JSON$/s, '')
    throw syntaxError(file, [{ message: `not JSON: ${plain}`, location: at(offset) }])
  }
}

function convert(root: Node, document: Document, at: (offset: number) => SourceLocation): ConfigNode {
  let count = 0
  const visit = (node: Node | null, depth: number): ConfigNode => {
    const where = at(node?.range?.[0] ?? 0)
    if (++count > NODE_LIMIT || depth > 64) {
      throw syntaxError(where.file, [
        { message: 'the file unfolds to more than a configuration can hold', location: where },
      ])
    }
    if (node === null) return { kind: 'scalar', value: null, at: where }
    if (isAlias(node)) {
      const target = node.resolve(document)
      if (target) return visit(target, depth + 1)
      const message = `the alias *${node.source} names no anchor (&${node.source})`
      throw syntaxError(where.file, [{ message, location: where }])
    }
    if (isSeq(node))
      return { kind: 'list', items: node.items.map((item) => visit(item as Node | null, depth + 1)), at: where }
    if (isMap(node)) {
      const entries = new Map<string, { key: SourceLocation; node: ConfigNode }>()
      for (const pair of node.items) {
        if (!isPair(pair) || !isScalar(pair.key)) {
          throw syntaxError(where.file, [{ message: 'a key must be a word, not a list or a map', location: where }])
        }
        const key = at(pair.key.range?.[0] ?? 0)
        const value =
          pair.value === null ? { kind: 'scalar' as const, value: null, at: key } : visit(pair.value as Node, depth + 1)
        entries.set(String(pair.key.value), { key, node: value })
      }
      return { kind: 'map', entries, at: where }
    }
    return { kind: 'scalar', value: isScalar(node) ? node.value : null, at: where }
  }
  return visit(root, 0)
}
