/** The page that a long run of the native oracle leaves behind. */
import { rows } from '../../src/rows/index.ts'
import type { Oracle } from './oracle.ts'
import { APPROXIMATE, VENDORS, whyNot } from './rules.ts'

export function report(oracle: Oracle, codeSize: 32 | 64, seed: number, seconds: number): string {
  const counts = [...oracle.counts].sort()
  const reasons = new Map<string, Set<string>>()
  for (const row of rows) {
    const reason = whyNot(row, codeSize)
    if (reason && !/privileged|not of this mode|reserved NOP/.test(reason)) reasons.set(reason, (reasons.get(reason) ?? new Set()).add(row.mnemonic))
  }
  const undefined_ = new Map<string, string>()
  for (const row of oracle.rows) if (row.flags.undefined) undefined_.set(row.mnemonic, row.flags.undefined)
  return [
    `# Native oracle, ${codeSize}-bit`,
    '',
    `${oracle.total.toLocaleString('en')} cases over ${oracle.rows.length} rows, seed ${seed}: ${oracle.different} differences, ${Math.round(seconds)} s.`,
    '',
    `Run it again: \`node --conditions=@nonroot/source packages/x86/tools/oracle-native.ts --cases ${oracle.total} --seed ${seed} --mode ${codeSize}\`.`,
    '',
    '## Not compared',
    '',
    '- Flags that the manual leaves undefined (letters as in the rows; shifts and rotates by a count other than 1 add O, beyond the operand C): ' +
      [...undefined_].map(([name, flags]) => `${name} ${flags}`).join(', ') + '.',
    `- Values of ${APPROXIMATE.source.replaceAll(/[\^$()]/g, '').replaceAll('|', ', ')}: approximations that differ between processors; \`oracle-float.ts\` judges them by units in the last place.`,
    '- x87 instruction and data pointers unless an exception is pending: AMD keeps them only then.',
    ...VENDORS.map(([pattern, , reason]) => `- ${pattern.source.replaceAll(/[\^$]/g, '')}, where ${reason}.`),
    '- ARPL: whether a fault of its operand is one of reading or of writing.',
    '- 32-bit accesses across the end of a segment of 4 GiB.',
    '- Which of two faults comes first in CMPS, indirect CALL, PUSHA and POPA.',
    '',
    '## Not run',
    '',
    ...[...reasons].map(([reason, names]) => `- ${[...names].join(', ')}: ${reason}.`),
    '',
    '## Counts',
    '',
    '| row | cases | exceptions | differences |',
    '|---|---:|---:|---:|',
    ...counts.map(([name, { cases, faults, different }]) => `| ${name} | ${cases} | ${faults} | ${different} |`),
    '',
  ].join('\n')
}
