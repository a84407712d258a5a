/** Records the machine code of every `asm(bits, 'source')` in the tests into src/testing/assembled.ts. Needs GNU as and objcopy. */
import { execFileSync } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'assemble-'))
const file = (name: string) => join(folder, name)

function assemble(bits: string, source: string): string {
  writeFileSync(file('a.s'), `.code${bits}\n.intel_syntax noprefix\n${source.replaceAll(';', '\n')}\n`)
  execFileSync('as', ['--64', '-o', file('a.o'), file('a.s')])
  execFileSync('objcopy', ['-O', 'binary', '-j', '.text', file('a.o'), file('a.bin')])
  return readFileSync(file('a.bin')).toString('hex')
}

const code: Record<string, string> = {}
for (const name of globSync('src/**/*.test.ts', { cwd: root }).sort()) {
  for (const [, bits, quote, text] of readFileSync(join(root, name), 'utf8').matchAll(
    /\basm\(\s*(16|32|64),\s*(['`])((?:(?!\2)[^\\])*)\2/g,
  )) {
    void quote
    try {
      code[`${bits} ${text}`] = assemble(bits!, text!)
    } catch (error) {
      console.error(`${name}: ${text}`)
      throw error
    }
  }
}
const lines = Object.entries(code)
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([key, hex]) => `  ${JSON.stringify(key)}: '${hex}',`)
writeFileSync(
  join(root, 'src/testing/assembled.ts'),
  `/** Recorded by tools/assemble.ts. Do not edit. */\nexport const CODE: Readonly<Record<string, string>> = {\n${lines.join('\n')}\n}\n`,
)
console.log(`${lines.length} snippets`)
