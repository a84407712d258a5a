/** Packages of Debian's mirrors by HTTP, trusted by the archive's signatures alone: no package client, no privilege. */
import { NonrootError } from '@nonroot/contracts'
import { concatBytes, decodeText, sha256 } from '../bytes.ts'
import type { Bytes } from '../bytes.ts'
import { decompressChunks } from '../compression.ts'
import { ImageError, OWN_FILES } from '../errors.ts'
import type { Fetch, ImageHost, OnProgress } from '../host.ts'
import { getFile, mirrorFailed } from './http.ts'
import { PackageLists } from './package-lists.ts'
import type { ListedPackage } from './package-lists.ts'
import { openRelease } from './release.ts'
import type { Release } from './release.ts'
import { fileName, hashMismatch, PackageSource } from './source.ts'
import type { DebianPackage } from './source.ts'

export interface Mirrors {
  /** Addresses, each of a folder that has `dists` and `pool`. Of a package on several the newest version counts. */
  readonly urls: readonly string[]
  /** OpenPGP public keys, armored or not, one of which signs each suite. Default: those of Debian's archive for the suite. */
  readonly keys?: Bytes
  /** A mirror that brings less than 4 KiB in this time has failed. Milliseconds; default 30,000. */
  readonly stallMs?: number
  /** Milliseconds since 1970. Default: now. */
  readonly now?: number
}

export interface MirroredSuite {
  readonly uri: string
  readonly suite: string
}

/** The release, its updates between point releases, and its security updates: each mirror has some of them. */
const suitesOf = (suite: string): string[] => [suite, `${suite}-updates`, `${suite}-security`]

const MOST_RELEASE = 8 << 20
const MOST_LIST = 256 << 20
const LIST = 'main/binary-amd64/Packages'
/** In order of size. */
const LIST_ENDINGS = ['.xz', '.gz', '']
/** Relative, without "." and "..": so that it is below the mirror's address. */
const POOL_PATH = /^(?:(?!\.{1,2}\/)[\w.+~:-]+\/)+(?!\.{1,2}$)[\w.+~:-]+$/

function mirrorUrl(address: string): URL {
  const url = URL.parse(address)
  if (url && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search && !url.hash)
    return new URL(url.href.replace(/\/*$/, '/'))
  throw new NonrootError({
    code: 'usage',
    message: `"${address}" is not the address of a mirror`,
    thing: 'mirror',
    value: address,
    remedy: 'give one by http: or https:, without a user, a query or a fragment: the folder that has dists and pool',
  })
}

export class Mirror extends PackageSource {
  private readonly urls: readonly URL[]
  private readonly suite: string
  private readonly options: Mirrors
  private lists: PackageLists | undefined
  private found: MirroredSuite[] = []

  /** `folder` keeps downloads and package lists. Throws NonrootError unless each address may be a mirror's. */
  constructor(host: ImageHost, folder: string, progress: OnProgress, suite: string, options: Mirrors) {
    super('the mirror', 'name a mirror that has it', host, folder, progress)
    this.urls = options.urls.map(mirrorUrl)
    this.suite = suite
    this.options = options
  }

  async show(names: readonly string[]): Promise<Map<string, DebianPackage>> {
    this.lists ??= await this.readLists()
    const result = new Map<string, DebianPackage>()
    for (const name of names) {
      const found = this.lists.find(name)
      if (found) result.set(name, found)
    }
    return result
  }

  async prepare(name: string): Promise<void> {
    if ((await this.show([name])).has(name)) return
    const where = this.found.map(({ uri, suite }) => `${uri} ${suite}`).join(', ')
    throw new ImageError('packageNotFound', `${where} has no package ${name} for amd64`, `use another mirror, or ${OWN_FILES}`)
  }

  /** What there is on the mirrors, with valid signatures. */
  async suites(): Promise<readonly MirroredSuite[]> {
    this.lists ??= await this.readLists()
    return this.found
  }

  protected providers(name: string): Promise<readonly string[]> {
    return Promise.resolve(this.lists?.providers(name) ?? [])
  }

  protected async fetch(missing: readonly DebianPackage[], folder: string): Promise<void> {
    const total = missing.reduce((sum, { size }) => sum + size, 0)
    let before = 0
    for (const { name } of missing) {
      const listed = this.lists!.find(name)!
      const onBytes = (count: number) => this.progress({ step: 'download', what: name, done: before + count, total })
      await this.host.writeFile(`${folder}/${fileName(listed)}`, await this.getPackage(listed, onBytes))
      before += listed.size
    }
  }

  private async getPackage({ name, path, mirror, size, sha256: hash }: ListedPackage, onBytes: (count: number) => void): Promise<Bytes> {
    if (!POOL_PATH.test(path))
      throw new ImageError('packageListInvalid', `the record of package ${name} names the file ${JSON.stringify(path)}`, 'use another mirror')
    const url = below(mirror, path)
    const bytes = await this.get(url, size, onBytes)
    if (!bytes) throw mirrorFailed(`${url.href} is not there`, 'use another mirror, or try again later')
    return checked(url.href, bytes, { size, sha256: hash })
  }

  private get(url: URL, most: number, onBytes?: (count: number) => void): Promise<Bytes | undefined> {
    const { stallMs = 30_000 } = this.options
    const { fetch } = this.host
    if (!fetch) throw new ImageError('mirrorFailed', 'this host makes no HTTP requests', `give it a fetch function, or ${OWN_FILES}`)
    return getFile(fetch satisfies Fetch, url, { most, stallMs, ...(onBytes ? { onBytes } : {}) })
  }

  private async readLists(): Promise<PackageLists> {
    const { now = Date.now() } = this.options
    const keys = this.options.keys ?? (await import('./debian-keys.ts')).debianKeys()
    const lists = new PackageLists()
    for (const mirror of this.urls) {
      for (const suite of suitesOf(this.suite)) {
        const url = below(mirror, `dists/${suite}/InRelease`)
        this.progress({ step: 'update', what: `${suite} of ${mirror.href}`, done: 0, total: 1 })
        const file = await this.get(url, MOST_RELEASE)
        if (!file) continue
        const release = await openRelease(file, { keys, suite, url: url.href, now })
        lists.add(await this.readList(mirror, suite, release), mirror)
        this.found.push({ uri: mirror.href, suite })
      }
    }
    if (this.found.some(({ suite }) => suite === this.suite)) return lists
    const where = this.urls.map(({ href }) => href).join(', ')
    throw mirrorFailed(`${where} has no dists/${this.suite}/InRelease`, 'give the address of the folder that has dists and pool')
  }

  /** The suite's package list: from the cache where that has the very same. */
  private async readList(mirror: URL, suite: string, { files, byHash }: Release): Promise<string> {
    const path = LIST_ENDINGS.map((ending) => `${LIST}${ending}`).find((one) => files.has(one))
    const folder = below(mirror, `dists/${suite}/`)
    if (path === undefined) throw mirrorFailed(`${folder.href} lists no ${LIST}`)
    const wanted = files.get(path)!
    const url = below(folder, path)
    if (wanted.size > MOST_LIST) throw mirrorFailed(`${url.href} has ${wanted.size} bytes, where at most ${MOST_LIST} are due`)
    const kept = `${this.folder}/lists/${suite}-${path.replaceAll('/', '_')}`
    let bytes = await this.host.readFile(kept)
    if (!bytes || (await sha256(bytes)) !== wanted.sha256) {
      // By its hash, so that a list of a later day does not take its place meanwhile.
      const named = below(folder, `${path.slice(0, path.lastIndexOf('/'))}/by-hash/SHA256/${wanted.sha256}`)
      const got = (byHash ? await this.get(named, wanted.size) : undefined) ?? (await this.get(url, wanted.size))
      if (!got) throw mirrorFailed(`${url.href} is not there`, 'use another mirror, or try again later')
      bytes = await checked(url.href, got, wanted)
      await this.host.writeFile(kept, bytes)
    }
    return decodeText(await this.unpack(bytes, files.get(LIST)?.size ?? MOST_LIST, url.href))
  }

  /** Small files may have much in them. */
  private async unpack(bytes: Bytes, most: number, name: string): Promise<Bytes> {
    const parts: Bytes[] = []
    let size = 0
    for await (const part of decompressChunks(bytes, this.host.decompressors ?? {}, name)) {
      parts.push(part)
      if ((size += part.length) > Math.min(most, MOST_LIST)) throw mirrorFailed(`${name} unpacks to more than ${Math.min(most, MOST_LIST)} bytes`)
    }
    return concatBytes(parts)
  }
}

const below = (folder: URL, path: string): URL => new URL(path.replaceAll(':', '%3a'), folder)

async function checked(name: string, bytes: Bytes, wanted: { readonly size: number; readonly sha256: string }): Promise<Bytes> {
  if (bytes.length !== wanted.size)
    throw new ImageError('downloadFailed', `${name} has ${bytes.length} bytes, not ${wanted.size}`, 'try again later, or use another mirror')
  const hash = await sha256(bytes)
  if (hash !== wanted.sha256) throw hashMismatch(name, hash, wanted.sha256)
  return bytes
}
