/** Archives and packages made by hand, and compressed samples, for this package's tests. */
import { alignUp, concatBytes, encodeText, sha256 } from './bytes.ts'
import type { ImageHost, RunResult } from './host.ts'
import { NonrootError } from '@nonroot/contracts'

export const fromBase64 = (text: string): Uint8Array =>
  Uint8Array.from(atob(text), (character) => character.charCodeAt(0))

/** "hello xz world " forty times, compressed. */
export const HELLO = 'hello xz world '.repeat(40)
export const HELLO_XZ = fromBase64(
  '/Td6WFoAAAFpIt42AgAhARYAAAB0L+Wj4AJXABldADQZSe6N6RfQtA5NCWQW7Aspobfzvia7MAAAAAAAQP1DXAABMdgEAAAAGqOUOj4wDYsCAAAAAAFZWg==',
)
export const HELLO_ZSTD = fromBase64('KLUv/WRYAbUAAHhoZWxsbyB4eiB3b3JsZCABAEakmnWFcaHk')
export const HELLO_LZ4 = fromBase64('AiFMGBwAAAD/AGhlbGxvIHh6IHdvcmxkIA8A//8zUG9ybGQg')

/** 700 bytes of x86-64 code with calls, through xz --x86 --lzma2, and their SHA-256. */
export const BRANCHES_XZ = fromBase64(
  '/Td6WFoAAAFpIt42AgEEACEBAADaM60D4AK7AcFdAHQcG6/8wqA2zrdj8nbH05u9hznDqel8SZkAhdhF81nsv/XCJguxvwehmVyH71+oKTMTSnQ5YZWWgGKnxG/IKv8/lb4IgPQWIVDUAHkEQP0IX3nhP1qwyzkLc5Pbb+/wqF3UpcCWxOgAYnZ0BPGU22urVpjv/CU5OvqOSGKE9YOaHcjPso7bDABKcrk+WhxZn4MpqybpmqYj37NVP2UEiGB4F/5judwtCkf72ff6iEW+fKFXFttqJhulYGMM4h68DT6TvFDTqrQ7A5uQCtyVrs3Ve1DOZudBEe8Q+je7lc3pKW9ey5hoeHf27sQIbIxemunyqARhEdfNlFE5KL8cCLpUkYHGETWV649YxckZ5hwXuyc7uwEJ/B6Esx/P+YCW3ZgjpLSqXiEWFKSFol56WFSoYK8WZ6r6MIGJg47XwKMJyAgFGO6670RWSUk+kyaWcsWJo8DzlqeOO3pBWrBerv5WzWiR/4qDbDs2jEvxKSCnM/6PeGCNFiauRVyN7eN01CG52kh4sHC9WaKHXvF6RWts0rgz61NGxhpansphx0Xh1hjGcInq2a7i7D2vuPj/ZD3VDlYzKLEtZ3/YHGwpH2bAAAAAAKNpzQYAAdkDvAUAACPQq+A+MA2LAgAAAAABWVo=',
)
export const BRANCHES_SHA256 = 'a9a92a58a55da5caf4259ee1c4d722f434d9d76db8d367a80efa7cc580b9aaee'

export interface TarSample {
  readonly name: string
  readonly data?: Uint8Array | string
  readonly type?: string
  readonly link?: string
  readonly mode?: number
}

/** A ustar archive. */
export function tar(samples: readonly TarSample[]): Uint8Array<ArrayBuffer> {
  const parts = samples.flatMap(({ name, data = '', type = '0', link = '', mode = 0o644 }) => {
    const content = typeof data === 'string' ? encodeText(data) : data
    const header = new Uint8Array(512)
    const put = (at: number, text: string) => header.set(encodeText(text), at)
    const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0')
    put(0, name)
    put(100, octal(mode, 7))
    put(124, octal(content.length, 11))
    put(148, ' '.repeat(8))
    put(156, type)
    put(157, link)
    put(257, 'ustar\0' + '00')
    put(
      148,
      octal(
        header.reduce((sum, byte) => sum + byte, 0),
        6,
      ) + '\0',
    )
    return [header, content, new Uint8Array(alignUp(content.length, 512) - content.length)]
  })
  return concatBytes([...parts, new Uint8Array(1024)])
}

export const ar = (members: readonly { name: string; data: Uint8Array }[]): Uint8Array =>
  concatBytes([
    encodeText('!<arch>\n'),
    ...members.flatMap(({ name, data }) => [
      encodeText(
        `${name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${String(data.length).padEnd(10)}\`\n`,
      ),
      data,
      new Uint8Array(data.length & 1),
    ]),
  ])

export async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream('gzip'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

export const deb = async (control: string, files: readonly TarSample[]): Promise<Uint8Array> =>
  ar([
    { name: 'debian-binary', data: encodeText('2.0\n') },
    { name: 'control.tar.gz', data: await gzip(tar([{ name: './control', data: control }])) },
    { name: 'data.tar.gz', data: await gzip(tar(files)) },
  ])

/** An ELF64 relocatable with nothing but .modinfo. */
export function kernelModule(info: Readonly<Record<string, string>>): Uint8Array {
  const modinfo = encodeText(
    Object.entries(info)
      .map(([key, value]) => `${key}=${value}\0`)
      .join(''),
  )
  const names = encodeText('\0.modinfo\0.shstrtab\0')
  const table = alignUp(64 + modinfo.length + names.length, 8)
  const elf = new Uint8Array(table + 3 * 64)
  const view = new DataView(elf.buffer)
  elf.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  elf.set(modinfo, 64)
  elf.set(names, 64 + modinfo.length)
  view.setBigUint64(0x28, BigInt(table), true)
  view.setUint16(0x3a, 64, true)
  view.setUint16(0x3c, 3, true)
  view.setUint16(0x3e, 2, true)
  const section = (index: number, name: number, kind: number, start: number, size: number) => {
    view.setUint32(table + index * 64, name, true)
    view.setUint32(table + index * 64 + 4, kind, true)
    view.setBigUint64(table + index * 64 + 0x18, BigInt(start), true)
    view.setBigUint64(table + index * 64 + 0x20, BigInt(size), true)
  }
  section(1, 1, 1, 64, modinfo.length)
  section(2, 10, 3, 64 + modinfo.length, names.length)
  return elf
}

/** What a promise rejects with, which must be an error of ours. */
export async function rejection(promise: Promise<unknown>): Promise<NonrootError | undefined> {
  try {
    await promise
    return undefined
  } catch (error) {
    if (error instanceof NonrootError && error.code !== 'internal') return error
    throw error
  }
}

export interface ArchivePackage {
  readonly name: string
  readonly version?: string
  readonly depends?: string
  readonly preDepends?: string
  readonly provides?: string
  /** This version was installed by hand; the archive has the other, or none where that is `none`. */
  readonly byHand?: string
  readonly files?: readonly TarSample[]
}

export interface FakeHost extends ImageHost {
  readonly files: Map<string, Uint8Array>
  readonly calls: string[]
}

/** A machine with an apt that knows these packages; what it downloads lands in `files`. */
export async function createFakeHost(
  packages: readonly ArchivePackage[] | 'no apt',
  damage = false,
): Promise<FakeHost> {
  const files = new Map<string, Uint8Array>()
  const calls: string[] = []
  const archive = new Map<string, { record: string; byHand: string | undefined; bytes: Uint8Array; provides: string }>()
  for (const {
    name,
    version = '1:1.0-1',
    depends = '',
    preDepends = '',
    provides = '',
    byHand,
    files = [],
  } of packages === 'no apt' ? [] : packages) {
    const control = `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\n`
    const bytes = await deb(control, files)
    const record = `${control}${preDepends && `Pre-Depends: ${preDepends}\n`}${depends && `Depends: ${depends}\n`}Size: ${bytes.length}\nSHA256: ${await sha256(bytes)}\nDescription: x\n more\n`
    const installed =
      byHand && `Package: ${name}\nStatus: install ok installed\nVersion: ${byHand}\nArchitecture: amd64\n`
    archive.set(name, { record: version === 'none' ? '' : record, byHand: installed, bytes, provides })
  }
  const run = (program: string, args: readonly string[], folder?: string): RunResult => {
    calls.push([program, ...args].join(' '))
    if (packages === 'no apt') return { found: false }
    const plain = args.filter(
      (argument, index) => argument !== '-o' && args[index - 1] !== '-o' && argument !== '--no-all-versions',
    )
    const [verb, ...names] = plain
    const done = (stdout: string, status = 0): RunResult => ({
      found: true,
      status,
      stdout,
      stderr: status ? 'E: Unable to locate\n' : '',
    })
    if (program === 'apt-cache' && verb === 'show') {
      return done(
        // Of one version the candidate's, else all, newest first.
        names
          .flatMap((name) => archive.get(name) ?? [])
          .flatMap(({ byHand, record }) =>
            byHand && args.includes('--no-all-versions') ? byHand : [byHand ?? '', record],
          )
          .filter(Boolean)
          .join('\n'),
        names.every((name) => archive.has(name)) ? 0 : 100,
      )
    }
    if (program === 'apt-cache' && verb === 'showpkg') {
      const found = [...archive].filter(([, { provides }]) => provides === names[0]).map(([name]) => `${name} 1.0`)
      return done(`Package: ${names[0]}\nVersions: \n\nReverse Provides: \n${found.join('\n')}\n`)
    }
    if (program === 'apt-get' && verb === 'update') return done('')
    if (program === 'apt-get' && verb === 'download') {
      for (const wanted of names) {
        const [name, version] = wanted.split('=') as [string, string]
        const bytes = archive.get(name)!.bytes.slice()
        if (damage) bytes[bytes.length - 1]! ^= 1
        files.set(`${folder}/${name}_${version.replaceAll(':', '%3a')}_amd64.deb`, bytes)
      }
      return done('')
    }
    return done('', 100)
  }
  return {
    files,
    calls,
    run: (program, args, options) => Promise.resolve(run(program, args, options?.folder)),
    readFile: (path) => Promise.resolve(files.get(path)),
    fileSize: (path) => Promise.resolve(files.get(path)?.length),
    writeFile: (path, bytes) => Promise.resolve(void files.set(path, bytes.slice())),
    makeFolder: () => Promise.resolve(),
    removeFile: (path) => Promise.resolve(void files.delete(path)),
    listFolder: (path) =>
      Promise.resolve([...new Set([...files.keys()].filter((file) => file.startsWith(`${path}/`)).map((file) => file.slice(path.length + 1).split('/')[0]!))]),
    removeFolder: (path) => Promise.resolve([...files.keys()].forEach((file) => file.startsWith(`${path}/`) && files.delete(file))),
  }
}
