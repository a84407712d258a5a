/** Finds the closest valid spelling of a misspelt word. */

/** Edits (insert, delete, replace, swap neighbours) from one word to another, ignoring case. */
function distance(left: string, right: string): number {
  const rows: number[][] = [Array.from({ length: right.length + 1 }, (_, column) => column)]
  for (let i = 1; i <= left.length; i++) {
    const row = [i]
    for (let j = 1; j <= right.length; j++) {
      const same = left[i - 1] === right[j - 1]
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + (same ? 0 : 1))
      if (i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]) {
        best = Math.min(best, rows[i - 2]![j - 2]! + 1)
      }
      row.push(best)
    }
    rows.push(row)
  }
  return rows[left.length]![right.length]!
}

/** The word closest to `wrong`, if it is close enough to be meant: at most a third of its letters differ, or two. */
export function nearest(wrong: string, words: Iterable<string>): string | undefined {
  let best: string | undefined
  let least = Math.max(2, Math.floor(wrong.length / 3)) + 1
  for (const word of words) {
    const edits = distance(wrong.toLowerCase(), word.toLowerCase())
    const contained = word
      .toLowerCase()
      .split(/[-/:@]/)
      .includes(wrong.toLowerCase())
      ? 1
      : edits
    const cost = Math.min(edits, contained)
    if (cost < least) {
      least = cost
      best = word
    }
  }
  return best
}

/** `did you mean "paging"? Valid: a, b, c` */
export function suggest(wrong: string, words: Iterable<string>, valid = 'valid'): string {
  const all = [...words]
  const near = nearest(wrong, all)
  const list = all.length ? `${valid}: ${all.join(', ')}` : ''
  return [near ? `did you mean "${near}"?` : '', list].filter(Boolean).join(' ')
}
