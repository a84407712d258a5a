/** `nonroot config check`. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import { json, report } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { loadAll } from './load.ts'

export async function configCheck(
  file: string,
  options: { set: readonly string[]; json?: boolean },
  io: CommandIo,
): Promise<number> {
  try {
    const { host } = await loadAll(file, options.set)
    if (options.json) json(io, { valid: true, file: host.file })
    else io.out(`${file}: ok\n`)
    return ExitCode.ok
  } catch (error) {
    if (!options.json || !(error instanceof NonrootError)) return report(error, io, options.json === true)
    json(io, { valid: false, file, errors: (error.errors.length ? error.errors : [error]).map((one) => one.toJSON()) })
    return error.exitCode
  }
}
