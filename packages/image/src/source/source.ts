/** Where Debian's packages come from: what each source answers, and how packages are chosen, downloaded and checked. */
import { sha256 } from '../bytes.ts'
import type { Bytes } from '../bytes.ts'
import { ImageError, OWN_FILES } from '../errors.ts'
import type { ImageHost, OnProgress } from '../host.ts'

export interface DebianPackage {
  readonly name: string
  readonly version: string
  readonly architecture: string
  /** Of its file, in bytes. */
  readonly size: number
  readonly sha256: string
  /** Pre-Depends, then Depends: each a list of alternatives, by name alone. */
  readonly depends: readonly (readonly string[])[]
}

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

/** As deb-control(5) and deb-version(7) have them: none of them can lead out of a folder. */
const NAMES = { Package: /^[a-z0-9][a-z0-9+.-]+$/, Version: /^\d[\w.+~:-]*$/, Architecture: /^[a-z0-9-]+$/ }

/** Undefined where the record names no file. Throws where its name, version or architecture is none. */
export function toPackage(fields: ReadonlyMap<string, string>): DebianPackage | undefined {
  const get = (name: string) => fields.get(name) ?? ''
  if (get('Package') === '' || get('Version') === '' || !/^[0-9a-f]{64}$/.test(get('SHA256'))) return undefined
  for (const [field, pattern] of Object.entries(NAMES)) {
    if (!pattern.test(get(field)))
      throw new ImageError('packageListInvalid', `a package record has ${field} ${JSON.stringify(get(field))}`, 'use another mirror')
  }
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
export const fileName = ({ name, version, architecture }: DebianPackage): string =>
  `${name}_${version.replaceAll(':', '%3a')}_${architecture}.deb`

export abstract class PackageSource {
  /** In messages. */
  readonly title: string
  /** Of a package that is not there. */
  protected readonly remedy: string
  protected readonly host: ImageHost
  protected readonly folder: string
  protected readonly progress: OnProgress

  /** `folder` keeps downloads. */
  constructor(title: string, remedy: string, host: ImageHost, folder: string, progress: OnProgress) {
    this.title = title
    this.remedy = `check the spelling of --include, or ${remedy}`
    this.host = host
    this.folder = folder
    this.progress = progress
  }

  /** Makes sure that there are package lists that know `name`. Throws ImageError. */
  abstract prepare(name: string): Promise<void>
  /** Package records by name; a name without a candidate is absent from the result. */
  abstract show(names: readonly string[]): Promise<Map<string, DebianPackage>>
  /** Names of packages that provide this one (virtual packages), the best first. */
  protected abstract providers(name: string): Promise<readonly string[]>
  /** Gets the files of packages into the folder. */
  protected abstract fetch(missing: readonly DebianPackage[], folder: string): Promise<void>

  /** Why none of these can be had although one is known: then no other package takes its place. */
  protected hidden(_group: readonly string[]): ImageError | undefined {
    return undefined
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
        const hidden = real ? undefined : this.hidden(group)
        if (hidden) throw hidden
        const chosen = real ?? (await this.provider(group, taken))
        if (chosen === undefined) {
          const message = `${this.title} has no package ${group.join(' | ')}`
          throw new ImageError('packageNotFound', message, this.remedy)
        }
        if (taken.has(chosen.name)) continue
        taken.set(chosen.name, chosen)
        next.push(...chosen.depends)
      }
      wave = next
    }
    return [...taken.values()]
  }

  /** A package that provides one of the names. */
  private async provider(
    names: readonly string[],
    taken: ReadonlyMap<string, DebianPackage>,
  ): Promise<DebianPackage | undefined> {
    for (const name of names) {
      const providers = await this.providers(name)
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
    await this.fetch(missing, folder)
    this.progress({ step: 'download', what, done: total, total })
  }

  /** A downloaded package's bytes, checked against the hash in the archive's signed lists. */
  async read(wanted: DebianPackage): Promise<Bytes> {
    const path = `${this.folder}/packages/${fileName(wanted)}`
    const bytes = await this.host.readFile(path)
    if (!bytes) throw new ImageError('downloadFailed', `${this.title} left no ${path}`, OWN_FILES)
    const hash = await sha256(bytes)
    if (hash !== wanted.sha256) {
      await this.host.removeFile(path)
      throw hashMismatch(path, hash, wanted.sha256)
    }
    return bytes
  }
}

export const hashMismatch = (what: string, hash: string, wanted: string): ImageError =>
  new ImageError(
    'hashMismatch',
    `${what} has SHA-256 ${hash}, not ${wanted}`,
    'run it again; if it stays so, the mirror is not to be trusted',
  )
