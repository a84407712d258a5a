/** Order of Debian's version numbers. (deb-version(7)) */

/** Of a character outside numbers: `~` sorts before the end, the end before letters, letters before everything else. */
const rank = (character: string | undefined): number => {
  if (character === undefined) return 0
  if (character === '~') return -1
  const code = character.charCodeAt(0)
  return /[a-z]/i.test(character) ? code : code + 256
}

/** Alternately by a part without digits and by a number. */
function compareParts(a: string, b: string): number {
  const [these, those] = [a, b].map((text) => text.split(/(\d+)/)) as [string[], string[]]
  for (let part = 0; part < Math.max(these.length, those.length); part++) {
    const [left = '', right = ''] = [these[part], those[part]]
    if (part % 2 === 1) {
      const difference = BigInt(left || 0) - BigInt(right || 0)
      if (difference !== 0n) return difference < 0n ? -1 : 1
    }
    for (let at = 0; part % 2 === 0 && at < Math.max(left.length, right.length); at++) {
      const difference = rank(left[at]) - rank(right[at])
      if (difference !== 0) return difference
    }
  }
  return 0
}

/** Epoch, upstream version and revision: what is left out is as 0. */
function split(version: string): [string, string, string] {
  const [, epoch = '0', upstream, revision = '0'] = /^(?:(\d+):)?(.*?)(?:-([^-]*))?$/.exec(version)!
  return [epoch, upstream!, revision]
}

/** Negative where `a` is older. */
export function compareVersions(a: string, b: string): number {
  const [these, those] = [split(a), split(b)]
  for (const part of [0, 1, 2] as const) {
    const order = compareParts(these[part], those[part])
    if (order !== 0) return order
  }
  return 0
}
