/** `nonroot plugins`: from manifests only, no plugin is imported. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import type { FoundPackage, ModuleSource } from '@nonroot/contracts'
import { loadConfig, packagesOf, readManifest } from '@nonroot/hypervisor'
import { moduleSource } from '../host.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'

interface Row {
  readonly name: string
  readonly version: string
  readonly folder: string
  readonly provides: readonly string[]
  readonly problem?: string
}

export async function plugins(file: string | undefined, options: { json?: boolean }, io: CommandIo): Promise<number> {
  const source = moduleSource()
  const rows =
    file === undefined ? (await source.installedPlugins(source.workingFolder)).map(toRow) : await named(file, source)
  if (options.json) return (json(io, rows), ExitCode.ok)
  if (rows.length === 0) io.err('no plugins are installed here\n')
  else io.err('plugins are trusted: each may do whatever this process may\n')
  for (const row of rows) {
    io.out(`${row.name}@${row.version}${row.folder ? `  ${row.folder}` : ''}\n`)
    if (row.problem) io.out(`  unusable: ${row.problem}\n`)
    for (const item of row.provides) {
      const [role = '', name = ''] = item.split(':')
      io.out(`  ${role.padEnd(10)} ${name}\n`)
    }
  }
  return ExitCode.ok
}

async function named(file: string, source: ModuleSource): Promise<Row[]> {
  const rows = new Map<string, Row>()
  for (const { specifier, folder } of packagesOf(await loadConfig(file, source), source)) {
    const found = await source.findPackage(specifier, folder)
    const row = found
      ? toRow(found)
      : { name: specifier, version: '?', folder: '', provides: [], problem: 'it is not installed' }
    rows.set(row.name, row)
  }
  return [...rows.values()]
}

function toRow(found: FoundPackage): Row {
  const { name, version, folder } = found
  try {
    const { provides } = readManifest(found, { specifier: name, thing: name, location: { file: found.manifestFile } })
    return { name, version, folder, provides }
  } catch (error) {
    if (!(error instanceof NonrootError)) throw error
    return { name, version, folder, provides: [], problem: error.message }
  }
}
