/** The first that a program loads of this package: on an older Node the rest would end in errors of its own. */

import { NonrootError } from '@nonroot/contracts'

const OLDEST = [24, 11] as const

/** Throws `host.node` where Node is too old. The command starts the Node that came with it in its place (bin/nonroot.js); a program that imports the package cannot. */
export function checkNode(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) return
  throw new NonrootError({
    code: 'host.node',
    message: `nonroot needs Node ${OLDEST.join('.')} or newer; this is ${version}`,
    thing: 'Node',
    value: version,
    remedy: `run the program with a newer one: npx node@${OLDEST[0]} PROGRAM`,
  })
}

checkNode(process.versions.node)
