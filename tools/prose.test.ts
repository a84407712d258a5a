/** What lint says of words: paraphrases of the glossary's terms, and commit subjects. */

import { describe, expect, it } from 'vitest'
import { subjectProblem } from './commit-subjects.ts'
import { findParaphrases } from './prose.ts'

describe('paraphrases', () => {
  it.each([
    ['a document', 'README.md', 'A region.\n\nIts way out is rare.', 3],
    ['a block comment', 'a.ts', 'const a = 1\n/**\n * Each is told.\n */', 3],
    ['a line comment', 'a.ts', 'const a = 1 // a door', 1],
  ])('are found in %s', (_where, file, text, line) => {
    expect(findParaphrases(file, text).map((finding) => finding.line)).toEqual([line])
  })
  it.each([
    ['code', 'a.ts', "const told = 'way out' + door"],
    ['quoted code', 'a.ts', '/** `told` is a flag. */'],
    ['a fenced block', 'README.md', '```\nway out\n```\n'],
    ['a URL', 'a.ts', "const a = 'https://nobody.example'"],
    ['the address of a link', 'README.md', '[ADR 12](adr/what-is-told.md)'],
    ['part of a word', 'README.md', 'outdoors'],
  ])('are not looked for in %s', (_where, file, text) => {
    expect(findParaphrases(file, text)).toEqual([])
  })
})

describe('commit subjects', () => {
  it.each([
    'fix(x86): keep the base of a nulled segment',
    'feat!: drop Node 20',
    'refactor(cpu-vmx,x86): pass hooks no core',
    'test: process every row',
    `fix(x86): ${'a'.repeat(72 - 'fix(x86): '.length)}`,
    'Revert "fix(x86): keep the base"',
  ])('%s', (subject) => {
    expect(subjectProblem(subject)).toBeUndefined()
  })
  it.each([
    ['type(scope)', 'keep the base of a nulled segment'],
    ['type(scope)', 'fixes(x86): keep the base'],
    ['73 characters', `fix(x86): ${'a'.repeat(73 - 'fix(x86): '.length)}`],
    ['imperative', 'fix(x86): kept the base of a nulled segment'.replace('kept', 'loaded')],
    ['imperative', 'fix(x86): keeps the base'],
    ['imperative', 'fix(x86): keeping the base'],
    ['imperative', 'fix(x86): the base is kept'],
    ['several changes', 'fix(x86): keep the base; docs: say so'],
    ['full stop', 'fix(x86): keep the base.'],
    ['capital', 'fix(x86): Keep the base'],
  ])('refused, %s: %s', (problem, subject) => {
    expect(subjectProblem(subject)).toContain(problem)
  })
})
