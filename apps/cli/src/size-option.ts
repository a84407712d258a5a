/** Sizes on the command line, as in a configuration and as in QEMU: `512M`, `1G`. */

import { NonrootError, parseSize } from '@nonroot/contracts'

/** `512M` as `512 MiB`; what is written otherwise is left as it is. */
export function withUnit(text: string): string {
  const short = /^(\d+)([KMGT])$/i.exec(text.trim())
  return short ? `${short[1]} ${short[2]!.toUpperCase()}iB` : text
}

/** In bytes. */
export function sizeOption(option: string, text: string): number {
  const size = parseSize(withUnit(text))
  if (typeof size === 'number' && size > 0) return size
  throw new NonrootError({
    code: 'usage',
    message: `${option}: ${typeof size === 'number' ? 'no size at all' : size.problem}`,
    thing: option,
    value: text,
  })
}
