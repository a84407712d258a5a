/** Packages by the system's package client, which queries and downloads them. Installs nothing and needs no privilege. */
import { parseControl } from '../deb.ts'
import { ImageError, OWN_FILES } from '../errors.ts'
import type { ImageHost, OnProgress } from '../host.ts'
import { PackageSource, toPackage } from './source.ts'
import type { DebianPackage } from './source.ts'

/** Where Debian lists its mirrors: for people, nothing is fetched from there. */
const MIRROR_LIST = 'https://www.debian.org/mirror/list'

export class Apt extends PackageSource {
  private options: readonly string[] = []
  private readonly known = new Map<string, DebianPackage | undefined>()
  /** Versions that no archive has a file of, by name: put in by hand. */
  private readonly fileless = new Map<string, string>()

  /** `folder` keeps downloads, and lists of our own where the system has none. */
  constructor(host: ImageHost, folder: string, progress: OnProgress) {
    super('apt', 'run apt-get update', host, folder, progress)
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
        `check the network and /etc/apt/sources.list, or ${OWN_FILES}`,
      )
    }
  }

  protected async providers(name: string): Promise<string[]> {
    const { stdout } = await this.run('apt-cache', ['showpkg', name], [0, 100])
    return (stdout.split('Reverse Provides:')[1] ?? '')
      .split('\n')
      .map((line) => line.trim().split(' ')[0] ?? '')
      .filter(Boolean)
  }

  protected override hidden(group: readonly string[]): ImageError | undefined {
    const byHand = group.find((name) => this.fileless.has(name))
    if (byHand === undefined) return undefined
    return new ImageError(
      'packageNotFound',
      `apt has no file of package ${byHand}, of which version ${this.fileless.get(byHand)} was installed by hand`,
      'add an archive that has it to /etc/apt/sources.list, or leave it out of --include',
    )
  }

  protected async fetch(missing: readonly DebianPackage[], folder: string): Promise<void> {
    await this.run('apt-get', ['download', ...missing.map(({ name, version }) => `${name}=${version}`)], [0], folder)
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
        `name a mirror of Debian with --mirror URL or NONROOT_MIRROR (${MIRROR_LIST} lists them), or ${OWN_FILES}`,
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
        `check the network, or ${OWN_FILES}`,
      )
    }
    return result
  }
}
