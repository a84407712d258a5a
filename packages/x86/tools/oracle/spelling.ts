/** What objdump prints, brought to the manual's spelling: the differences between the two that are only of naming. */

/** Prefixes that objdump prints as words of their own. */
const PREFIX_WORD =
  /^(?:data16|data32|addr32|addr16|bnd|notrack|xacquire|xrelease|cs|ds|es|ss|fs|gs|lock|repz|repnz|rep|rex(?:\.[WRXB]+)?) (?=\S)/

const MNEMONICS: Readonly<Record<string, string>> = {
  movabs: 'mov',
  sysretl: 'sysret',
  sysretd: 'sysret',
  sysexitl: 'sysexit',
  cwtl: 'cwde',
  icebp: 'int1',
  fld1: 'fld1',
  iretw: 'iret',
  fcom2: 'fcom',
  fcomp3: 'fcomp',
  fcomp5: 'fcomp',
  fxch4: 'fxch',
  fxch7: 'fxch',
  fstp1: 'fstpnce',
  fstp8: 'fstp',
  fstp9: 'fstp',
  fneni: 'fneni',
  'fneni(8087': 'fneni',
  'fndisi(8087': 'fndisi',
  'fnsetpm(287': 'fnsetpm',
  pushfd: 'pushf',
  popfd: 'popf',
  pushfq: 'pushf',
  popfq: 'popf',
  pushad: 'pusha',
  popad: 'popa',
}

/** Mnemonics that carry an immediate in objdump's spelling: `cmpltps`, `pclmullqhqdq`. */
const COMPARISON = /^cmp(?:eq|lt|le|unord|neq|nlt|nle|ord)(ps|pd|ss|sd)$/
const CARRYLESS = /^pclmul[lh]q[lh]qdq$/

export function commonMnemonic(name: string): string {
  const bare = name.replace(/,p[nt]$/, '')
  if (CARRYLESS.test(bare)) return 'pclmulqdq'
  return MNEMONICS[bare] ?? bare.replace(COMPARISON, 'cmp$1')
}

/** Instructions of other vendors: objdump knows them, this processor has to refuse them. */
export const FOREIGN: ReadonlySet<string> = new Set(
  'vmgexit vmmcall vmrun vmload vmsave stgi clgi skinit invlpga invlpgb tlbsync rmpadjust rmpupdate psmash pvalidate monitorx mwaitx clzero rdpru mcommit'.split(
    ' ',
  ),
)

const BRANCH = /^(?:j|call|loop|xbegin)/

export interface Text {
  readonly mnemonic: string
  readonly operands: string
}

/** Splits a line of either disassembler, comments, symbols and prefixes removed. */
export function parseText(line: string): Text {
  let text = line
    .replace(/\s+#.*$/, '')
    .replace(/\s*<[^>]*>/g, '')
    .replace(/\s+/g, ' ')
    .trim()
  let shorter = text.replace(PREFIX_WORD, '')
  while (shorter !== text) [text, shorter] = [shorter, shorter.replace(PREFIX_WORD, '')]
  // 66 90 and the like: objdump names the encoding, the manual the instruction.
  if (text === 'xchg ax,ax') text = 'nop'
  const space = text.indexOf(' ')
  const [name, rest] = space < 0 ? [text, ''] : [text.slice(0, space), text.slice(space + 1)]
  const operands = rest.replace(/\+[re]iz\*1(?=[+\-\]])/, '')
  // Without symbols objdump marks targets with 0x.
  return { mnemonic: commonMnemonic(name), operands: BRANCH.test(name) ? operands.replace(/^0x/, '') : operands }
}
