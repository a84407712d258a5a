/** Images of a mirror's packages: what is verified, and what a mirror that is broken or hostile comes to. */
import { readdirSync, readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { decodeText, encodeText } from '../bytes.ts'
import type { Bytes } from '../bytes.ts'
import { debianImage, SUITE } from '../debian.ts'
import { ImageError } from '../errors.ts'
import type { Fetch } from '../host.ts'
import { createFakeHost, deb, rejection } from '../samples.test.support.ts'
import { addSuite, makeKey, serve } from '../testing/mirror.ts'
import type { Files, MirrorPackage, SigningKey, SuiteOptions, TestMirror } from '../testing/mirror.ts'
import { debianKeys, DEBIAN_KEYS } from './debian-keys.ts'
import { Mirror } from './mirror.ts'
import { openRelease } from './release.ts'
import { compareVersions } from './versions.ts'

const fetchFile: Fetch = (url, signal) => fetch(url, { redirect: 'manual', signal })

async function packed(name: string, more = '', version = '1.0-1'): Promise<MirrorPackage> {
  const control = `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\n${more}`
  return { control, bytes: await deb(control, [{ name: `./usr/bin/${name}`, data: `${name} ${version}`, mode: 0o755 }]) }
}

let key: SigningKey
let stranger: SigningKey
let packages: MirrorPackage[]
let open: TestMirror | undefined
beforeAll(async () => {
  ;[key, stranger] = await Promise.all([makeKey(), makeKey()])
  packages = [
    await packed('tool', 'Pre-Depends: libc6 (>= 2.36)\nDepends: missing | virtual-shell\n'),
    await packed('libc6', '', '2.36-9+deb12u9'),
    await packed('dash', 'Provides: other (= 1), virtual-shell\n', '1:0.5~rc1'),
  ]
})
afterEach(async () => {
  await open?.close()
  open = undefined
})

type Answer = NonNullable<Parameters<typeof serve>[1]>
interface Setting {
  readonly options?: Partial<SuiteOptions>
  readonly change?: (files: Files) => void
  readonly answer?: Answer
}

async function mirror({ options = {}, change, answer }: Setting) {
  const files: Files = new Map()
  await addSuite(files, packages, { suite: SUITE, key, ...options })
  change?.(files)
  open = await serve(files, answer)
  const host = { ...(await createFakeHost('no apt')), fetch: fetchFile }
  const mirrors = { urls: [open.url], keys: key.publicKey, stallMs: 200 }
  return { files, host, mirror: new Mirror(host, '/cache', () => {}, SUITE, mirrors) }
}

const names = (found: readonly { name: string; version: string }[]) => found.map(({ name, version }) => `${name} ${version}`)

describe('a mirror', () => {
  it('has packages with what they depend on, downloaded once', async () => {
    const { mirror: source, host } = await mirror({})
    await source.prepare('tool')
    const found = await source.resolve(['tool'])
    expect(names(found)).toEqual(['tool 1.0-1', 'libc6 2.36-9+deb12u9', 'dash 1:0.5~rc1'])
    await source.download(found)
    expect([...host.files.keys()].filter((path) => path.endsWith('.deb'))).toContain('/cache/packages/dash_1%3a0.5~rc1_amd64.deb')
    expect(await source.read(found[1]!)).toEqual(packages[1]!.bytes)
    const before = open!.asked.length
    await source.download(found)
    expect(open!.asked.length).toBe(before)
  })

  it('keeps its package list, and asks for its release each time', async () => {
    const { host } = await mirror({})
    const again = () => new Mirror(host, '/cache', () => {}, SUITE, { urls: [open!.url], keys: key.publicKey }).prepare('tool')
    await again()
    await again()
    const count = (path: string) => open!.asked.filter((asked) => asked === `dists/${SUITE}/${path}`).length
    expect([count('InRelease'), count('main/binary-amd64/Packages.gz')]).toEqual([2, 1])
  })

  it('has the newest version of its suites, by hash where it offers that', async () => {
    const newer = [await packed('libc6', '', '2.36-9+deb12u10')]
    const { mirror: source, files } = await mirror({ options: { fields: { 'Acquire-By-Hash': 'yes' } } })
    await addSuite(files, newer, { suite: `${SUITE}-security`, key })
    expect(names([...(await source.show(['libc6', 'dash'])).values()])).toEqual(['libc6 2.36-9+deb12u10', 'dash 1:0.5~rc1'])
    expect((await source.suites()).map(({ suite }) => suite)).toEqual([SUITE, `${SUITE}-security`])
    expect(open!.asked).toContainEqual(expect.stringMatching(/by-hash\/SHA256\/[0-9a-f]{64}$/))
  })

  it('may redirect', async () => {
    const { mirror: source } = await mirror({
      answer: (path, response, request) => {
        if (path.startsWith('moved/')) return ((request.url = request.url!.replace('moved/', '')), false)
        response.writeHead(302, { location: `/debian/moved/${path}` }).end()
        return true
      },
      change: (files) => [...files].forEach(([path, bytes]) => files.set(`moved/${path}`, bytes)),
    })
    expect((await source.show(['tool'])).size).toBe(1)
  })
})

const IN_RELEASE = `dists/${SUITE}/InRelease`
const LIST = `dists/${SUITE}/main/binary-amd64/Packages.gz`
const POOL = `pool/main/p/${SUITE}-0.deb`
const text = (files: Files, path: string, change: (text: string) => string) => files.set(path, encodeText(change(decodeText(files.get(path)!))))
const flip = (files: Files, path: string) => files.set(path, files.get(path)!.map((byte, index) => (index === 40 ? byte ^ 1 : byte)))
const on = (wanted: string, answer: (response: ServerResponse) => void): Answer => (path, response) => path === wanted && (answer(response), true)
const days = (count: number) => new Date(Date.now() + count * 86_400_000).toUTCString()
const record = (from: string, to: string) => ({ list: (list: string) => list.replace(from, to) })

const CASES: (Setting & { readonly name: string; readonly reason: string; readonly says: RegExp })[] = [
  { name: 'a change in what is signed', change: (files) => text(files, IN_RELEASE, (all) => all.replace('Origin: test', 'Origin: nest')), reason: 'badSignature', says: /is not signed by a key that is trusted/ },
  { name: 'no signature', change: (files) => text(files, IN_RELEASE, (all) => all.slice(0, all.indexOf('-----BEGIN PGP SIGNATURE'))), reason: 'badSignature', says: /is not signed/ },
  { name: 'text beside what is signed', options: { fields: { Codename: 'buster' } }, change: (files) => text(files, IN_RELEASE, (all) => `Codename: ${SUITE}\n\n${all}\nCodename: ${SUITE}\n`), reason: 'badSignature', says: /is of the suite "buster"/ },
  { name: 'an empty release', change: (files) => files.set(IN_RELEASE, new Uint8Array(0)), reason: 'badSignature', says: /is not signed/ },
  { name: 'another suite’s release', options: { fields: { Codename: 'buster' } }, reason: 'badSignature', says: /is of the suite "buster", not bookworm/ },
  { name: 'a release that has expired', options: { fields: { 'Valid-Until': days(-1) } }, reason: 'expired', says: /was valid until/ },
  { name: 'a date that is none', options: { fields: { 'Valid-Until': 'never' } }, reason: 'expired', says: /was valid until never/ },
  { name: 'a release of the future', options: { fields: { Date: days(3) } }, reason: 'expired', says: /which is yet to come/ },
  { name: 'a package list with another hash', change: (files) => flip(files, LIST), reason: 'hashMismatch', says: /Packages\.gz has SHA-256/ },
  { name: 'a package list that is short', change: (files) => files.set(LIST, files.get(LIST)!.slice(0, -1)), reason: 'downloadFailed', says: /Packages\.gz has \d+ bytes, not \d+/ },
  { name: 'a package list that is long', change: (files) => files.set(LIST, new Uint8Array(5000)), reason: 'mirrorFailed', says: /has 5000 bytes, where at most \d+ are due/ },
  { name: 'a package with another hash', change: (files) => flip(files, POOL), reason: 'hashMismatch', says: /bookworm-0\.deb has SHA-256/ },
  { name: 'a package that is short', change: (files) => files.set(POOL, new Uint8Array(3)), reason: 'downloadFailed', says: /has 3 bytes, not/ },
  { name: 'a package that is not there', change: (files) => files.delete(POOL), reason: 'mirrorFailed', says: /bookworm-0\.deb is not there/ },
  { name: 'no such suite', change: (files) => files.clear(), reason: 'mirrorFailed', says: /has no dists\/bookworm\/InRelease/ },
  { name: 'a file outside of the mirror', options: record(POOL, 'pool/../../../etc/passwd'), reason: 'packageListInvalid', says: /names the file "pool\/\.\./ },
  { name: 'a file elsewhere', options: record(POOL, 'http://other.example/x.deb'), reason: 'packageListInvalid', says: /names the file "http:/ },
  { name: 'a version that leads out of the cache', options: record('Version: 1.0-1', 'Version: 1/../../x'), reason: 'packageListInvalid', says: /has Version "1\/\.\./ },
  { name: 'a package that does not exist', options: record('virtual-shell\n', 'other-shell\n'), reason: 'packageNotFound', says: /the mirror has no package missing \| other-shell/ },
  { name: 'a redirection without end', answer: (path, response) => (response.writeHead(302, { location: `/debian/${path}` }).end(), true), reason: 'mirrorFailed', says: /redirects more than 5 times/ },
  { name: 'a redirection to a file', answer: (_, response) => (response.writeHead(302, { location: 'file:///etc/passwd' }).end(), true), reason: 'mirrorFailed', says: /redirects to file:\/\/\/etc\/passwd/ },
  { name: 'a redirection to nowhere', answer: (_, response) => (response.writeHead(302).end(), true), reason: 'mirrorFailed', says: /redirects to nowhere/ },
  { name: 'an error of the server', answer: on(IN_RELEASE, (response) => response.writeHead(503).end()), reason: 'mirrorFailed', says: /answers with status 503/ },
  { name: 'no answer', answer: on(IN_RELEASE, () => {}), reason: 'mirrorFailed', says: /stalls: 0 bytes came in 0\.2 s/ },
  { name: 'a file that comes to a stop', answer: on(LIST, (response) => response.writeHead(200).write('x')), reason: 'mirrorFailed', says: /stalls: 1 bytes/ },
  { name: 'a connection that is cut', answer: on(POOL, (response) => response.writeHead(200, { 'content-length': 9 }).write('x', () => response.destroy())), reason: 'mirrorFailed', says: /cannot be reached/ },
  { name: 'a file without end', answer: on(IN_RELEASE, endless), reason: 'mirrorFailed', says: /has more bytes, where at most 8388608 are due/ },
  { name: 'a length that is said to be huge', answer: on(POOL, (response) => response.writeHead(200, { 'content-length': 1e12 }).write('x')), reason: 'mirrorFailed', says: /has 1000000000000 bytes/ },
]

function endless(response: ServerResponse): void {
  const chunk = new Uint8Array(1 << 20)
  const more = (): void => void (response.destroyed || (response.write(chunk) ? setImmediate(more) : response.once('drain', more)))
  more()
}

describe('a mirror is refused for', () => {
  it.each(CASES)('$name', async ({ reason, says, ...setting }) => {
    const { mirror: source, host } = await mirror(setting)
    const error = await rejection(
      (async () => {
        await source.prepare('tool')
        await source.download(await source.resolve(['tool']))
      })(),
    )
    expect(error).toBeInstanceOf(ImageError)
    expect(error).toMatchObject({ reason, message: expect.stringMatching(says), remedy: expect.stringMatching(/./) })
    // Nothing unverified is kept.
    expect([...host.files.keys()].filter((path) => !/^\/cache\/lists\/|_(1\.0|2\.36|1%3a0).*\.deb$/.test(path))).toEqual([])
  })

  it('a list that unpacks to more than it says', async () => {
    // As if the list in plain were shorter: the release, which is signed, says so.
    const { mirror: source, files } = await mirror({})
    const list = decodeText(files.get(IN_RELEASE)!).split('-----BEGIN PGP SIGNATURE')[0]!
    const body = list.slice(list.indexOf('\n\n') + 2).trim().replace(/ \d+ (\S+Packages)$/m, ' 10 $1')
    files.set(IN_RELEASE, encodeText(await key.clearsign(`${body}\n`)))
    expect(await rejection(source.prepare('tool'))).toMatchObject({ reason: 'mirrorFailed', message: expect.stringMatching(/unpacks to more than 10 bytes/) })
  })

  it("a stranger's key, and what is no key", async () => {
    const { host } = await mirror({})
    const source = (keys: Bytes) => new Mirror(host, '/cache', () => {}, SUITE, { urls: [open!.url], keys }).prepare('tool')
    expect(await rejection(source(stranger.publicKey))).toMatchObject({ reason: 'badSignature', message: expect.stringMatching(/Could not find signing key/) })
    expect(await rejection(source(debianKeys()))).toMatchObject({ reason: 'badSignature' })
    expect(await rejection(source(encodeText('none')))).toMatchObject({ reason: 'badSignature', message: expect.stringMatching(/no OpenPGP public keys/) })
  })

  it.each(['ftp://mirror/debian', 'mirror/debian', 'http://me:secret@mirror/debian', 'http://mirror/?x', ''])('the address "%s"', async (url) => {
    const host = await createFakeHost('no apt')
    const error = await rejection(debianImage(host, { cacheFolder: '/cache', mirrors: { urls: [url] } }))
    expect(error).toMatchObject({ code: 'usage', message: `"${url}" is not the address of a mirror` })
  })
})

it('where there is no server, says so', async () => {
  const { host } = await mirror({})
  const { url } = open!
  await open!.close()
  const error = await rejection(new Mirror(host, '/cache', () => {}, SUITE, { urls: [url] }).prepare('tool'))
  expect(error).toMatchObject({ reason: 'mirrorFailed', message: expect.stringMatching(/cannot be reached: .*ECONNREFUSED/), remedy: expect.stringMatching(/--kernel/) })
})

it('compares versions as deb-version(7) says', () => {
  const sorted = ['0~~', '0~', '0', '0.1a', '0.1+b', '0.9', '0.10', '1.0~rc1-1', '1.0-1', '1.0-1+deb12u9', '1.0-1+deb12u10', '1.0-2', '1.0.1-1', '1:0.1', '2:0-0']
  for (const [a, left] of sorted.entries())
    for (const [b, right] of sorted.entries()) expect(Math.sign(compareVersions(left, right)), `${left} ${right}`).toBe(Math.sign(a - b))
  expect(compareVersions('1.0', '1.0-0')).toBe(0)
  expect(compareVersions('0:01', '1')).toBe(0)
})

const LISTS = '/var/lib/apt/lists'
const releases = (() => {
  try {
    return readdirSync(LISTS).filter((name) => /_debian(-security)?_dists_bookworm[a-z-]*_InRelease$/.test(name))
  } catch {
    return []
  }
})()

describe.skipIf(releases.length === 0)("Debian's own releases, as apt has them", () => {
  it.each(releases)('%s', async (name) => {
    const file = new Uint8Array(readFileSync(`${LISTS}/${name}`))
    const suite = /_dists_(.*)_InRelease$/.exec(name)![1]!
    // When it was made: it may be out of date.
    const now = Date.parse(/^Date: (.*)$/m.exec(decodeText(file))![1]!)
    const trust = { keys: debianKeys(), suite, url: name, now: now + 3_600_000 }
    const { files } = await openRelease(file, trust)
    expect(files.get('main/binary-amd64/Packages.xz')?.size).toBeGreaterThan(1000)
    const changed = file.slice()
    changed[file.indexOf(0x0a, 200) + 30]! ^= 1
    expect(await rejection(openRelease(changed, trust))).toMatchObject({ reason: 'badSignature' })
    for (const keys of [key.publicKey]) expect(await rejection(openRelease(file, { ...trust, keys }))).toMatchObject({ reason: 'badSignature' })
  })
})

it('has the keys that their fingerprints say', async () => {
  const { readKeys } = await import('openpgp')
  const keys = await readKeys({ binaryKeys: new Uint8Array(debianKeys()) })
  expect(keys.map((one) => one.getFingerprint().toUpperCase())).toEqual(Object.keys(DEBIAN_KEYS))
  expect(keys.every((one) => !one.isPrivate())).toBe(true)
})
