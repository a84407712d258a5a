import { spawnSync } from 'node:child_process'
import { zstdDecompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { readAr } from './ar.ts'
import { concatBytes, decodeText, encodeText, sha256 } from './bytes.ts'
import { decompress } from './compression.ts'
import { readCpio, writeCpio } from './cpio.ts'
import { openDeb, parseControl } from './deb.ts'
import * as sample from './samples.test.support.ts'
import { readTar, type TarFile } from './tar.ts'
import { Tree } from './tree.ts'

const collect = async (files: AsyncIterable<TarFile>) => {
  const found: TarFile[] = []
  for await (const file of files) found.push(file)
  return found
}

describe('ar', () => {
  const archive = sample.ar([
    { name: 'odd', data: encodeText('abc') },
    { name: 'next/', data: encodeText('de') },
  ])

  it('gives members, odd sizes padded', () => {
    expect(readAr(archive).map(({ name, data }) => [name, decodeText(data)])).toEqual([
      ['odd', 'abc'],
      ['next', 'de'],
    ])
  })

  it.each([
    { name: 'no magic', bytes: encodeText('hello'), says: 'ar magic' },
    { name: 'a cut header', bytes: archive.subarray(0, 40), says: 'ar header at 8' },
    { name: 'cut data', bytes: archive.subarray(0, 70), says: 'size of the ar member at 8 is 3' },
    {
      name: 'a size that is no number',
      bytes: concatBytes([encodeText('!<arch>\n'), encodeText('x'.padEnd(48) + '-1'.padEnd(10) + '`\n')]),
      says: 'is -1',
    },
  ])('refuses $name', async ({ bytes, says }) => {
    expect((await sample.rejection(Promise.resolve().then(() => readAr(bytes, 'a.deb'))))!.message).toContain(says)
  })
})

describe('tar', () => {
  const long = `a/${'very-long-name/'.repeat(12)}end`
  const pax = (key: string, value: string) => {
    const body = ` ${key}=${value}\n`
    const length = body.length + String(body.length + 3).length
    return `${length}${body}`
  }

  it('gives files, folders, links, with long names of GNU and pax', async () => {
    const files = await collect(
      readTar([
        sample.tar([
          { name: './', type: '5', mode: 0o755 },
          { name: './etc/', type: '5', mode: 0o755 },
          { name: './etc/motd', data: 'hi', mode: 0o640 },
          { name: './l', type: '2', link: 'etc/motd' },
          { name: './h', type: '1', link: './etc/motd' },
          { name: '././@LongLink', type: 'L', data: `${long}\0` },
          { name: 'short', data: 'gnu' },
          { name: 'PaxHeaders', type: 'x', data: pax('path', long) + pax('mtime', '1.5') },
          { name: 'short', data: 'pax' },
          { name: 'after', data: 'x'.repeat(600) },
        ]),
      ]),
    )
    expect(files.map(({ kind, path, data }) => [kind, path, decodeText(data).slice(0, 3)])).toEqual([
      ['directory', '', ''],
      ['directory', 'etc', ''],
      ['file', 'etc/motd', 'hi'],
      ['symbolicLink', 'l', ''],
      ['hardLink', 'h', ''],
      ['file', long, 'gnu'],
      ['file', long, 'pax'],
      ['file', 'after', 'xxx'],
    ])
    expect(files[2]!.mode).toBe(0o640)
  })

  it('reads from chunks of any size and skips what is not wanted', async () => {
    const archive = sample.tar([
      { name: 'a', data: 'x'.repeat(1000) },
      { name: 'b', data: 'y'.repeat(700) },
    ])
    const chunks = Array.from({ length: Math.ceil(archive.length / 7) }, (_, i) => archive.subarray(i * 7, i * 7 + 7))
    const files = await collect(readTar(chunks, ({ path }) => path === 'b'))
    expect(files.map(({ path, data }) => [path, data.length])).toEqual([['b', 700]])
  })

  const good = sample.tar([{ name: 'a', data: 'x'.repeat(1000) }])
  const with_ = (at: number, text: string) => {
    const bad = good.slice()
    bad.set(encodeText(text), at)
    return bad
  }
  it.each([
    { name: 'a cut header', archive: good.subarray(0, 300), says: 'tar header is end of file' },
    { name: 'cut data', archive: good.subarray(0, 900), says: 'data of a is end of file' },
    { name: 'a wrong checksum', archive: with_(0, 'b'), says: 'tar header checksum' },
    { name: 'a size that is not octal', archive: with_(124, '99'), says: 'checksum' },
    {
      name: 'a path that climbs out',
      archive: sample.tar([{ name: '../../etc/passwd', data: 'x' }]),
      says: 'tar path is ../../etc/passwd',
    },
    {
      name: 'an endless long name',
      archive: sample.tar([{ name: 'x', type: 'L', data: 'y'.repeat(2_000_000) }]),
      says: 'extended header size',
    },
  ])('refuses $name', async ({ archive, says }) => {
    expect((await sample.rejection(collect(readTar([archive]))))!.message).toContain(says)
  })
})

describe('compression', () => {
  const decompressors = { zstd: (bytes: Uint8Array) => zstdDecompressSync(bytes) }

  it.each([
    { name: 'xz', bytes: sample.HELLO_XZ },
    { name: 'zstd', bytes: sample.HELLO_ZSTD },
    { name: 'lz4', bytes: sample.HELLO_LZ4 },
    { name: 'none', bytes: encodeText(sample.HELLO) },
  ])('undoes $name', async ({ bytes }) => {
    expect(decodeText(await decompress(bytes, decompressors))).toBe(sample.HELLO)
  })

  it('undoes gzip', async () => {
    expect(decodeText(await decompress(await sample.gzip(encodeText(sample.HELLO))))).toBe(sample.HELLO)
  })

  it('undoes xz through the x86 branch filter, and checks', async () => {
    expect(await sha256(await decompress(sample.BRANCHES_XZ))).toBe(sample.BRANCHES_SHA256)
    const bad = sample.BRANCHES_XZ.slice()
    bad[200]! ^= 0x10
    expect((await sample.rejection(decompress(bad)))!.message).toMatch(/xz/)
  })

  it('refuses zstd where the host has none', async () => {
    expect((await sample.rejection(decompress(sample.HELLO_ZSTD)))!.remedy).toContain('zstd')
  })

  it.each([
    { name: 'xz', bytes: sample.HELLO_XZ },
    { name: 'xz with branches', bytes: sample.BRANCHES_XZ },
    { name: 'lz4', bytes: sample.HELLO_LZ4 },
    { name: 'zstd', bytes: sample.HELLO_ZSTD },
  ])('refuses $name cut anywhere, and goes on afterwards', async ({ bytes }) => {
    for (let length = 12; length < bytes.length - 4; length += 5) {
      const error = await sample.rejection(decompress(bytes.subarray(0, length), decompressors, 'f'))
      // lz4 has no end mark: cut between blocks it is merely short.
      if (error) expect(error.code).toBe('boot.image')
      else expect((await decompress(bytes.subarray(0, length), decompressors)).length).toBeLessThan(sample.HELLO.length)
    }
    expect(decodeText(await decompress(sample.HELLO_XZ))).toBe(sample.HELLO)
  })
})

describe('deb', () => {
  it('gives control fields and files', async () => {
    const bytes = await sample.deb('Package: hello\nVersion: 1:2.0\nDescription: short\n longer\n .\n end\n', [
      { name: './usr/bin/hello', data: 'x', mode: 0o755 },
    ])
    const deb = await openDeb(bytes)
    expect(deb.control.get('Description')).toBe('short\nlonger\n.\nend')
    expect((await collect(deb.files())).map(({ path, mode }) => [path, mode])).toEqual([['usr/bin/hello', 0o755]])
  })

  it.each([
    { name: 'another archive', bytes: sample.ar([{ name: 'x', data: new Uint8Array(1) }]), says: 'first member is x' },
    {
      name: 'no control',
      bytes: sample.ar([{ name: 'debian-binary', data: encodeText('2.0\n') }]),
      says: 'member is control.tar',
    },
  ])('refuses $name', async ({ bytes, says }) => {
    expect((await sample.rejection(openDeb(bytes)))!.message).toContain(says)
  })

  it('parses several paragraphs', () => {
    expect(parseControl('A: 1\nB: 2\n\n\nA: 3\n').map((fields) => Object.fromEntries(fields))).toEqual([
      { A: '1', B: '2' },
      { A: '3' },
    ])
  })

  it('reads what dpkg-deb made with xz, where it is there', async () => {
    if (spawnSync('dpkg-deb', ['--version']).status !== 0) return
    const script =
      'd=$(mktemp -d); mkdir -p $d/p/DEBIAN $d/p/etc; printf "Package: t\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n" >$d/p/DEBIAN/control; echo hi >$d/p/etc/f; dpkg-deb -Zxz -b $d/p $d/t.deb >/dev/null; cat $d/t.deb; rm -r $d'
    const { stdout } = spawnSync('sh', ['-c', script])
    const deb = await openDeb(new Uint8Array(stdout))
    expect(
      (await collect(deb.files(({ path }) => path === 'etc/f')))
        .filter(({ kind }) => kind === 'file')
        .map(({ data }) => decodeText(data)),
    ).toEqual(['hi\n'])
  })
})

describe('cpio', () => {
  const tree = new Tree()
    .file('lib/x86_64-linux-gnu/libc.so.6', 'elf', 0o755)
    .link('bin/sh', 'busybox')
    .characterDevice('dev/console', 5, 1)

  it('is the same bytes for the same tree, in merged-/usr layout', () => {
    const archive = writeCpio(tree)
    expect(writeCpio(tree)).toEqual(archive)
    expect(archive.length % 512).toBe(0)
    const paths = readCpio(archive).map(({ path, mode }) => `${path} ${mode.toString(8)}`)
    expect(paths).toEqual([
      'bin 120777',
      'dev 40755',
      'dev/console 20600',
      'lib 120777',
      'lib64 120777',
      'sbin 120777',
      'usr 40755',
      'usr/bin 40755',
      'usr/bin/sh 120777',
      'usr/lib 40755',
      'usr/lib/x86_64-linux-gnu 40755',
      'usr/lib/x86_64-linux-gnu/libc.so.6 100755',
      'usr/lib64 40755',
      'usr/sbin 40755',
    ])
    expect(readCpio(archive).find(({ path }) => path === 'dev/console')!.rdev).toEqual([5, 1])
  })

  it('is read by cpio itself, where it is there', () => {
    const { status, stdout } = spawnSync('cpio', ['-it', '--quiet'], { input: writeCpio(tree), encoding: 'utf8' })
    if (status === null) return
    expect(stdout.split('\n')).toContain('usr/lib/x86_64-linux-gnu/libc.so.6')
  })

  it('refuses a cut archive', async () => {
    expect(
      (await sample.rejection(Promise.resolve().then(() => readCpio(writeCpio(tree).subarray(0, 400)))))!.message,
    ).toContain('cpio')
  })
})
