/** A mirror for tests: a suite with its release signed by a key made for it, served by HTTP from memory. */
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createCleartextMessage, generateKey, readPrivateKey, sign } from 'openpgp'
import { encodeText, sha256 } from '../bytes.ts'
import type { Bytes } from '../bytes.ts'
import { gzip } from '../samples.test.support.ts'

export interface SigningKey {
  readonly publicKey: Bytes
  clearsign(text: string, date?: Date): Promise<string>
}

export async function makeKey(): Promise<SigningKey> {
  const { privateKey, publicKey } = await generateKey({ userIDs: [{ name: 'test' }], date: new Date(0) })
  const signingKeys = await readPrivateKey({ armoredKey: privateKey })
  return {
    publicKey: encodeText(publicKey),
    clearsign: async (text, date = new Date()) => sign({ message: await createCleartextMessage({ text }), signingKeys, date }),
  }
}

export interface MirrorPackage {
  /** Its fields but for Filename, Size and SHA256. */
  readonly control: string
  readonly bytes: Bytes
  /** In place of the usual. */
  readonly path?: string
}

/** Of the files below the mirror's address: what each has. */
export type Files = Map<string, Bytes>

export interface SuiteOptions {
  readonly suite: string
  readonly key: SigningKey
  /** Further or other fields of the release. */
  readonly fields?: Readonly<Record<string, string>>
  /** Changes the package list before it is hashed. */
  readonly list?: (text: string) => string
}

export async function addSuite(files: Files, packages: readonly MirrorPackage[], { suite, key, fields = {}, list = (text) => text }: SuiteOptions): Promise<void> {
  const records: string[] = []
  for (const [index, { control, bytes, path = `pool/main/p/${suite}-${index}.deb` }] of packages.entries()) {
    files.set(path, bytes)
    records.push(`${control.trim()}\nFilename: ${path}\nSize: ${bytes.length}\nSHA256: ${await sha256(bytes)}\n`)
  }
  const plain = encodeText(list(records.join('\n')))
  const packed = await gzip(plain)
  const folder = 'main/binary-amd64'
  files.set(`dists/${suite}/${folder}/Packages.gz`, packed)
  const release = Object.entries({ Origin: 'test', Codename: suite, Date: new Date(Date.now() - 1000).toUTCString(), ...fields })
  const hashes = [` ${await sha256(plain)} ${plain.length} ${folder}/Packages`, ` ${await sha256(packed)} ${packed.length} ${folder}/Packages.gz`]
  const text = `${release.map(([name, value]) => `${name}: ${value}`).join('\n')}\nSHA256:\n${hashes.join('\n')}\n`
  files.set(`dists/${suite}/InRelease`, encodeText(await key.clearsign(text)))
}

export interface TestMirror {
  readonly url: string
  /** Paths that were asked for. */
  readonly asked: string[]
  close(): Promise<void>
}

/** `answer`: instead of the file; undefined where the file it is. */
export async function serve(files: Files, answer?: (path: string, response: ServerResponse, request: IncomingMessage) => boolean): Promise<TestMirror> {
  const asked: string[] = []
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url!.replace(/^\/debian\//, ''))
    asked.push(path)
    if (answer?.(path, response, request)) return
    const bytes = files.get(path)
    response.statusCode = bytes ? 200 : 404
    response.end(bytes)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/debian`,
    asked,
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
