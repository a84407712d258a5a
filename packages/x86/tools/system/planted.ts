/**
 * Mistakes, planted one by one into a copy of the processor, each of which oracle-system.ts must find. Where a mistake has no place any more, the code
 * has changed: say where it would be made now. EFER.NXE that flushes nothing is not among them: the manual does not say that it does, and only where an
 * entry has XD set, so that either answer is right, does it make a difference.
 *
 *     node --conditions=@nonroot/source packages/x86/tools/system/planted.ts [--programs 5000] [--only NAME]
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { tmpdir } from 'node:os'

interface Mistake {
  readonly name: string
  readonly file: string
  readonly right: string
  readonly wrong: string
  /** A second place in the file that the mistake takes: right, wrong. */
  readonly also?: readonly [string, string]
}

const MISTAKES: readonly Mistake[] = [
  { name: 'the paging-structure cache outlives INVLPG', file: 'paging/walk.ts', right: 'regions[slot] === key && regions[slot + 1] === p.generation', wrong: 'regions[slot] === key && regions[slot + 1] !== NO_GENERATION' },
  { name: 'a page fault leaves the paging-structure cache', file: 'paging/walk.ts', right: 'if (page === FAULT) regions[slot + 1] = NO_GENERATION\n      return page', wrong: 'return page', also: ['if (page !== FAULT) return page\n      }', 'return page\n      }'] },
  { name: 'block links to other pages outlive INVLPG', file: 'interpreter/handler-builder.ts', right: "isCurrent(this, this.rawLoad('i32', this.record, RECORD.farGeneration, 32)),", wrong: "this.ne(this.rawLoad('i32', this.record, RECORD.farGeneration, 32), -1)," },
  { name: 'block links to other pages forget at which address', file: 'interpreter/handler-builder.ts', right: "this.eq(this.rawLoad('i64', this.record, RECORD.farPage, 64), page),", wrong: 'this.i32(1),' },
  { name: 'pages only fetched from outlive INVLPG', file: 'paging/tlb/tlb.ts', right: 'if (i32[at + READ] === tag || i32[at + EXECUTE] === tag) kill', wrong: 'if (i32[at + READ] === tag) kill' },
  { name: 'the jump cache ignores its generation', file: 'interpreter/handlers.ts', right: 'rip), isCurrent(b, generation)), () => {', wrong: 'rip), b.ne(generation, 0)), () => {' },
  { name: 'INVPCID of an address flushes nothing', file: 'system/machine.ts', right: '    flushPage(core, Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(32, address >> 32n)))', wrong: '    void flushPage' },
  { name: 'INVPCID of all flushes nothing', file: 'system/machine.ts', right: 'else if (type === 2n) flushAll(core)', wrong: 'else if (type === 2n) void 0' },
  { name: 'CR4.SMEP flushes nothing', file: 'control/derive.ts', right: 'CR4.pcide | CR4.smep | CR4.smap', wrong: 'CR4.pcide | CR4.smap' },
  // The flush by itself changes nothing: with SMAP, translations are in another bank of the TLB, which has those rights.
  { name: 'CR4.SMAP takes effect at the next change of mode', file: 'control/derive.ts', right: 'if (cr0 || cr4 || efer) updateMode', wrong: 'if (cr0 || cr4 & ~CR4.smap || efer) updateMode' },
  { name: 'CR4.PGE flushes nothing', file: 'control/derive.ts', right: 'CR4.pge | CR4.pcide | CR4.smep | CR4.smap', wrong: 'CR4.pcide | CR4.smep | CR4.smap' },
  { name: 'CR0.WP flushes nothing', file: 'control/derive.ts', right: 'CR0.pg | CR0.wp | CR0.pe', wrong: 'CR0.pg | CR0.pe' },
  { name: 'a write of CR3 flushes nothing', file: 'control/derive.ts', right: "loadContext(core, cr3 === 'keep')", wrong: 'loadContext(core, true)' },
  { name: 'INVLPG leaves global pages in other contexts', file: 'paging/tlb/tlb.ts', right: '  flushElsewhere(core, low, high, true)\n', wrong: '' },
  { name: 'links to global pages outlive INVLPG', file: 'paging/tlb/tlb.ts', right: 'if (isGlobal) nextGlobalGeneration(core)', wrong: 'if (isGlobal) void 0' },
  { name: 'INVPCID of another PCID flushes nothing', file: 'system/machine.ts', right: 'else flushPcid(core, Number(pcid))', wrong: 'else void flushPcid' },
  { name: 'another context may write to code', file: 'paging/tlb/contexts.ts', right: 'if (writesUnchecked) dropWriteTagsOfCode(core)', wrong: 'void writesUnchecked' },
  { name: 'code on the second page of a crossing instruction is not watched', file: 'code/code-pages.ts', right: 'this.mark(nextPage, reach(block))', wrong: 'void reach' },
  { name: 'a crossing instruction does not look at its second page', file: 'interpreter/handlers.ts', right: 'b.ifUnlikely(b.eqz(same), () => b.exit(EXIT.crossing))', wrong: 'void same' },
  { name: 'a region is installed over changed bytes', file: 'compiler/compiler.ts', right: ' || this.#blocks.generation(block.host) !== generation', wrong: '' },
  { name: 'the cache of guest pages outlives a change of EPT', file: 'paging/tlb/tlb.ts', right: '  forgetGuestPages(core)\n  flushAll(core)', wrong: '  void forgetGuestPages\n  flushAll(core)' },
  { name: 'the TLB outlives a change of EPT', file: 'paging/tlb/tlb.ts', right: '  forgetGuestPages(core)\n  flushAll(core)', wrong: '  forgetGuestPages(core)' },
  { name: 'a single step after INT n', file: 'system/far-transfers.ts', right: '  core.stepping = false\n', wrong: '' },
  { name: 'MOV SS keeps its single step', file: 'events/debug.ts', right: 'core.stepping && core.get32(S.shadow) !== SHADOW.movSs', wrong: 'core.stepping' },
  { name: 'a page fault forgets one part of a large page', file: 'paging/tlb/tlb.ts', right: 'low, partsAt(paging, paging.context, low, high, true))) nextGeneration', wrong: 'low, 1)) nextGeneration' },
  { name: 'a PCID’s large page forgets its parts when another flushes it', file: 'paging/tlb/tlb.ts', right: 'partsAt(paging, number, low, high, bothRoots)', wrong: 'partsAt(paging, number, low, high, true)' },
  { name: 'a fault while a fault is delivered is served as itself', file: 'events/vectors.ts', right: 'const CONTRIBUTORY = bit(0, 10, 11, 12, 13)', wrong: 'const CONTRIBUTORY = bit(0, 10, 12)' },
]

const { values } = parseArgs({ options: { programs: { type: 'string' }, only: { type: 'string' } } })
const programs = values.programs ?? '5000'
const root = join(import.meta.dirname, '../../../..')
let missed = 0
for (const { name, file, right, wrong, also } of MISTAKES) {
  if (values.only && !name.includes(values.only)) continue
  const copy = mkdtempSync(join(tmpdir(), 'nonroot-planted-'))
  try {
    cpSync(join(root, 'packages/x86/src'), join(copy, 'src'), { recursive: true })
    cpSync(join(root, 'packages/x86/tools'), join(copy, 'tools'), { recursive: true })
    writeFileSync(join(copy, 'package.json'), readFileSync(join(root, 'packages/x86/package.json')))
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
    const at = join(copy, 'src', file)
    const source = readFileSync(at, 'utf8')
    const edits = [[right, wrong] as const, ...(also ? [also] : [])]
    for (const [there] of edits) if (!source.includes(there)) throw new Error(`${file} has no '${there}'`)
    writeFileSync(at, edits.reduce((text, [from, to]) => text.replace(from, () => to), source))
    const run = spawnSync(process.execPath, ['--conditions=@nonroot/source', 'tools/oracle-system.ts', '--programs', programs, '--most', '1', '--json'], { cwd: copy, encoding: 'utf8' })
    const last = run.stdout.trim().split('\n').at(-1) ?? ''
    const result = last.startsWith('{') ? (JSON.parse(last) as { programs: number; differences: number; seconds: number }) : undefined
    if (run.stderr.includes('no end after')) console.log(`found   ${name}: a program had no end`)
    else if (result?.differences) console.log(`found   ${name}: program ${result.programs}, ${result.seconds.toFixed(1)} s`)
    else {
      missed++
      console.log(`MISSED  ${name}${result ? ` (${result.programs} programs)` : `: ${run.stderr.slice(-400)}`}`)
    }
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}
console.log(missed ? `${missed} missed` : 'all found')
process.exitCode = missed ? 1 : 0
