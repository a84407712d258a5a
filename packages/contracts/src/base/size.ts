/** Sizes in bytes as people write them: `512 MiB`. */

const UNITS = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const

/** `512 MiB`, `1GiB`, `4096` or a number, as bytes. Otherwise a sentence that describes the problem. */
export function parseSize(text: string | number): number | { readonly problem: string } {
  if (typeof text === 'number') {
    return Number.isSafeInteger(text) && text >= 0 ? text : { problem: `${text} is not a whole number of bytes` }
  }
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text)
  if (!match) return { problem: `"${text}" is not a size; write it as 512 MiB` }
  const [, digits = '', unit = ''] = match
  const scale = UNITS[(unit || 'B') as keyof typeof UNITS]
  if (scale === undefined) {
    const near = Object.keys(UNITS).find((name) => name[0]!.toLowerCase() === unit[0]!.toLowerCase())
    const meant = near ? `; did you mean ${digits} ${near}?` : ''
    return { problem: `"${unit}" is not a unit of size (B, KiB, MiB, GiB, TiB)${meant}` }
  }
  const bytes = Number(digits) * scale
  return Number.isSafeInteger(bytes) ? bytes : { problem: `"${text}" is not a whole number of bytes` }
}

/** The shortest exact form: `512 MiB`, `4097 B`. */
export function formatSize(bytes: number): string {
  const unit = (['TiB', 'GiB', 'MiB', 'KiB'] as const).find((name) => bytes >= UNITS[name] && bytes % UNITS[name] === 0)
  return unit ? `${bytes / UNITS[unit]} ${unit}` : `${bytes} B`
}
