/** Queries the system's package client for packages, dependencies and files. Downloads them; installs nothing and needs no privilege. */
import { sha256 } from './bytes.ts'
import type { Bytes } from './bytes.ts'
import { parseControl } from './deb.ts'
import { ImageError } from './errors.ts'
import type { ImageHost, OnProgress } from './host.ts'

export interface DebianPackage {
  readonly name: string
  readonly version: string
  readonly architecture: string
  readonly size: number
  readonly sha256: string
  /** Pre-Depends, then Depends: each a list of alternatives, by name alone. */
  readonly depends: readonly (readonly string[])[]
}

const REMEDY = 'give a kernel and an initramfs of your own with --kernel FILE and --initrd FILE'

/** "a (>= 1) | b:any, c" → [[a, b], [c]]. Versions are the archive's business: one suite is consistent. (deb-control(5)) */
export const parseDepends = (field: string): string[][] =>
  field
    .split(',')
    .map((group) =>
      group
        .split('|')
        .map((alternative) => /^\s*([a-z0-9][a-z0-9+.-]*)/.exec(alternative)?.[1] ?? '')
        .filter(Boolean),
    )
    .filter((group) => group.length > 0)

function toPackage(fields: ReadonlyMap<string, string>): DebianPackage | undefined {
  const get = (name: string) => fields.get(name) ?? ''
  if (get('Package') === '' || get('Version') === '' || !/^[0-9a-f]{64}$/.test(get('SHA256'))) return undefined
  return {
    name: get('Package'),
    version: get('Version'),
    architecture: get('Architecture'),
    size: Number(get('Size')),
    sha256: get('SHA256'),
    depends: [...parseDepends(get('Pre-Depends')), ...parseDepends(get('Depends'))],
  }
}

/** As apt-get download names it. */
const fileName = ({ name, version, architecture }: DebianPackage) =>
  `${name}_${version.replaceAll(':', '%3a')}_${architecture}.deb`

export class Apt {
  private readonly host: ImageHost
  private readonly folder: string
  private readonly progress: OnProgress
  private options: readonly string[] = []
  private readonly known = new Map<string, DebianPackage | undefined>()
  /** Versions that no archive has a file of, by name: put in by hand. */
  private readonly fileless = new Map<string, string>()

  /** `folder` keeps downloads, and lists of our own where the system has none. */
  constructor(host: ImageHost, folder: string, progress: OnProgress) {
    this.host = host
    this.folder = folder
    this.progress = progress
  }

  /** Package records by name; a name without a candidate is absent from the result. */
  async show(names: readonly string[]): Promise<Map<string, DebianPackage>> {
    const unknown = names.filter((name) => !this.known.has(name))
    if (unknown.length > 0) {
      for (const name of unknown) this.known.set(name, undefined)
      await this.ask(['--no-all-versions', ...unknown])
      // The candidate is what is installed, if that is newest: an archive may have files of older versions, newest first.
      const byHand = unknown.filter((name) => this.fileless.has(name))
      if (byHand.length > 0) await this.ask(byHand)
    }
    const result = new Map<string, DebianPackage>()
    for (const name of names) {
      const found = this.known.get(name)
      if (found) result.set(name, found)
    }
    return result
  }

  private async ask(args: readonly string[]): Promise<void> {
    // Status 100 says that some names are unknown; the others are there all the same.
    const { stdout } = await this.run('apt-cache', ['show', ...args], [0, 100])
    for (const fields of parseControl(stdout)) {
      const found = toPackage(fields)
      if (!found) this.fileless.set(fields.get('Package') ?? '', fields.get('Version') ?? '')
      else if (this.known.get(found.name) === undefined) this.known.set(found.name, found)
    }
  }

  /** Makes sure that there are package lists that know `name`: the system's, or else some of our own, fetched without privilege. */
  async prepare(name: string): Promise<void> {
    if ((await this.show([name])).has(name)) return
    const own = `${this.folder}/apt`
    this.options = [
      ...['-o', `Dir::State=${own}/state`, '-o', `Dir::State::status=${own}/status`, '-o', `Dir::Cache=${own}/cache`],
      // Lists are in a folder that the sandbox user may not be able to reach.
      ...[
        '-o',
        'APT::Sandbox::User=root',
        '-o',
        'APT::Architecture=amd64',
        '-o',
        'APT::Architectures=amd64',
        '-o',
        'Acquire::Languages=none',
      ],
    ]
    this.known.clear()
    if (!(await this.show([name])).has(name)) {
      this.progress({ step: 'update', what: 'package lists', done: 0, total: 1 })
      await this.host.makeFolder(`${own}/state/lists/partial`)
      await this.host.makeFolder(`${own}/cache/archives/partial`)
      await this.host.writeFile(`${own}/status`, new Uint8Array(0))
      await this.run('apt-get', ['update'], [0])
      this.known.clear()
    }
    if (!(await this.show([name])).has(name)) {
      throw new ImageError(
        'packageNotFound',
        `apt knows no package ${name} for amd64`,
        `check the network and /etc/apt/sources.list, or ${REMEDY}`,
      )
    }
  }

  /** The packages and all that they need, in order of discovery. Of alternatives, one that is already taken, else the first there is. */
  async resolve(names: readonly string[]): Promise<DebianPackage[]> {
    const taken = new Map<string, DebianPackage>()
    let wave: (readonly string[])[] = names.map((name) => [name])
    while (wave.length > 0) {
      const open = wave.filter((group) => !group.some((name) => taken.has(name)))
      const there = await this.show([...new Set(open.flat())])
      const next: (readonly string[])[] = []
      for (const group of open) {
        if (group.some((name) => taken.has(name))) continue
        const real = group.map((name) => there.get(name)).find((found) => found)
        const byHand = group.find((name) => this.fileless.has(name))
        if (real === undefined && byHand !== undefined) {
          throw new ImageError(
            'packageNotFound',
            `apt has no file of package ${byHand}, of which version ${this.fileless.get(byHand)} was installed by hand`,
            'add an archive that has it to /etc/apt/sources.list, or leave it out of --include',
          )
        }
        const chosen = real ?? (await this.provider(group, taken))
        if (chosen === undefined) {
          throw new ImageError(
            'packageNotFound',
            `apt has no package ${group.join(' | ')}`,
            'check the spelling of --include, or run apt-get update',
          )
        }
        if (taken.has(chosen.name)) continue
        taken.set(chosen.name, chosen)
        next.push(...chosen.depends)
      }
      wave = next
    }
    return [...taken.values()]
  }

  /** A package that provides one of the names (virtual packages). */
  private async provider(
    names: readonly string[],
    taken: ReadonlyMap<string, DebianPackage>,
  ): Promise<DebianPackage | undefined> {
    for (const name of names) {
      const { stdout } = await this.run('apt-cache', ['showpkg', name], [0, 100])
      const providers = (stdout.split('Reverse Provides:')[1] ?? '')
        .split('\n')
        .map((line) => line.trim().split(' ')[0] ?? '')
        .filter(Boolean)
      const found = providers.map((provider) => taken.get(provider)).find((one) => one)
      if (found) return found
      const there = await this.show(providers)
      for (const provider of providers) if (there.has(provider)) return there.get(provider)
    }
    return undefined
  }

  /** Gets what the cache lacks of these packages, in one go. */
  async download(wanted: readonly DebianPackage[]): Promise<void> {
    const folder = `${this.folder}/packages`
    const missing: DebianPackage[] = []
    for (const one of wanted) {
      if ((await this.host.fileSize(`${folder}/${fileName(one)}`)) !== one.size) missing.push(one)
    }
    if (missing.length === 0) return
    const total = missing.reduce((sum, { size }) => sum + size, 0)
    const what = missing.map(({ name }) => name).join(' ')
    this.progress({ step: 'download', what, done: 0, total })
    await this.host.makeFolder(folder)
    for (const one of missing) await this.host.removeFile(`${folder}/${fileName(one)}`)
    await this.run('apt-get', ['download', ...missing.map(({ name, version }) => `${name}=${version}`)], [0], folder)
    this.progress({ step: 'download', what, done: total, total })
  }

  /** A downloaded package's bytes, checked against the hash in the archive's signed lists. */
  async read(wanted: DebianPackage): Promise<Bytes> {
    const path = `${this.folder}/packages/${fileName(wanted)}`
    const bytes = await this.host.readFile(path)
    if (!bytes) throw new ImageError('downloadFailed', `apt-get download left no ${path}`, REMEDY)
    const hash = await sha256(bytes)
    if (hash !== wanted.sha256) {
      await this.host.removeFile(path)
      const remedy = 'run it again; if it stays so, the mirror is not to be trusted'
      throw new ImageError('hashMismatch', `${path} has SHA-256 ${hash}, not ${wanted.sha256}`, remedy)
    }
    return bytes
  }

  private async run(
    program: string,
    args: readonly string[],
    accepted: readonly number[],
    folder?: string,
  ): Promise<{ stdout: string }> {
    const result = await this.host.run(program, [...this.options, ...args], folder === undefined ? {} : { folder })
    if (!result.found)
      throw new ImageError(
        'noPackageClient',
        `there is no ${program} here`,
        `images are made on Debian and its derivatives; elsewhere ${REMEDY}`,
      )
    if (!accepted.includes(result.status)) {
      const said =
        result.stderr
          .split('\n')
          .filter((line) => line.startsWith('E:'))
          .join(' ') || result.stderr.trim()
      throw new ImageError(
        'packageClientFailed',
        `${program} ${args[0]} ended with status ${result.status}: ${said}`,
        `check the network, or ${REMEDY}`,
      )
    }
    return result
  }
}
