/**
 * Linux on networks that have much to do, or are others' programs. All of it stays on the host's loopback. Takes minutes, and the network the first time:
 * NONROOT_DEBIAN=1 npx vitest run src/run/network-load.test.ts
 */

import { spawnSync } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttp } from 'node:http'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const MIB = Number(process.env['NONROOT_NETWORK_MIB'] ?? 64)
const folder = mkdtempSync(join(tmpdir(), 'nonroot-load-'))
const servers: Server[] = []
afterAll(() => {
  for (const server of servers) server.close()
  rmSync(folder, { recursive: true, force: true })
})
const listening = (server: Server): Promise<number> =>
  new Promise((resolve) => {
    servers.push(server)
    server.listen({ port: 0, host: '127.0.0.1', backlog: 2048 }, () => resolve((server.address() as AddressInfo).port))
  })

/** Bytes that look random, 1 MiB at a time, the same each time. */
function* stream(mib: number): Generator<Buffer> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16))
  const zeros = Buffer.alloc(1 << 20)
  for (let count = 0; count < mib; count++) yield cipher.update(zeros)
}
const md5 = (pieces: Iterable<Uint8Array>): string => {
  const hash = createHash('md5')
  for (const piece of pieces) hash.update(piece)
  return hash.digest('hex')
}
/** Serves `mib` MiB of the stream over HTTP, as fast as they are taken; says how many it got rid of. */
async function source(mib: number): Promise<{ port: number; sentMib: () => number }> {
  let sent = 0
  const server = createHttp((_request, response) => {
    response.on('error', () => {})
    const pieces = stream(mib)
    const more = (): void => {
      for (;;) {
        const { done, value } = pieces.next()
        if (done) return void response.end()
        sent++
        if (!response.write(value)) return void response.once('drain', more)
      }
    }
    more()
  })
  return { port: await listening(server), sentMib: () => sent }
}

interface RunOptions {
  /** Debian packages in the guest. */
  readonly include?: readonly string[]
  readonly flavour?: 'cloud' | 'generic'
}

/** What a script in the guest prints, which reaches these ports of the host at its gateway. */
async function run(
  ports: readonly number[],
  script: string,
  card: object = {},
  { include = [], flavour = 'cloud' }: RunOptions = {},
): Promise<string> {
  const file = join(folder, 'stack.yaml')
  const stack = {
    apiVersion: 'nonroot/v1',
    extends: 'nonroot/stacks/kvm-like.yaml',
    stack: { io: [{ use: '@nonroot/io-emulated' }, { use: '@nonroot/io-virtio' }] },
    devices: [{ kind: 'virtio-net', network: 'user', loopback: ports, ...card }],
  }
  writeFileSync(file, JSON.stringify(stack))
  const guest = await guestOf(flavour, include)
  const { out, err } = await spawnCli(['run', file, ...guest, '--timeout', '30m', '--', 'sh', '-c', script], { env })
  return out === '' ? err : out
}

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian on a busy network', { timeout: 2_400_000 }, () => {
  it('1,000 connections are open at once', async () => {
    const open: Socket[] = []
    const port = await listening(
      createServer((socket) => {
        socket.on('error', () => {})
        if (open.push(socket) === 1000) for (const one of open) one.end('held\n')
      }),
    )
    const script = `mkfifo /tmp/open; exec 3<>/tmp/open
i=0; while [ $i -lt 1000 ]; do nc 10.0.2.2 ${port} <&3 >>/tmp/said & i=$((i+1)); done
wait; sort /tmp/said | uniq -c`
    expect((await run([port], script)).trim()).toBe('1000 held')
  })

  it.each([
    { kind: 'virtio-net', flavour: 'cloud' },
    { kind: 'e1000', flavour: 'generic' },
  ] as const)(`$kind: ${MIB} MiB from the host go back to it as they come`, async ({ kind, flavour }) => {
    const from = await source(MIB)
    const sums: string[] = []
    const sink = await listening(
      createServer({ allowHalfOpen: true }, (socket) => {
        const hash = createHash('md5')
        socket.on('error', () => {})
        socket.on('data', (bytes) => hash.update(bytes))
        socket.on('end', () => {
          sums.push(hash.digest('hex'))
          socket.end('taken\n')
        })
      }),
    )
    const script = `mkfifo /tmp/copy; md5sum < /tmp/copy > /tmp/sum &
wget -qO- http://10.0.2.2:${from.port}/ | tee /tmp/copy | nc 10.0.2.2 ${sink}; wait; cut -d' ' -f1 /tmp/sum`
    const sum = md5(stream(MIB))
    expect((await run([from.port, sink], script, { kind }, { flavour })).trim().split('\n')).toEqual(['taken', sum])
    expect(sums).toEqual([sum])
  })

  it('a slow reader on either side holds the sender up, and gets all of it in the end', async () => {
    const ALL = 96
    // Sockets of the host and of the guest hold some MiB each way; what lies between them is ours.
    const HELD = 40
    const from = await source(ALL)
    const sums: string[] = []
    let late: Socket | undefined
    const sink = await listening(
      createServer({ allowHalfOpen: true }, (socket) => {
        const hash = createHash('md5')
        late = socket
        socket.on('error', () => {})
        socket.on('data', (bytes) => hash.update(bytes))
        socket.on('end', () => {
          sums.push(hash.digest('hex'))
          socket.end()
        })
        socket.pause()
      }),
    )
    const waiting: Socket[] = []
    const gate = await listening(createServer((socket) => void waiting.push(socket.on('error', () => {}))))
    // Nothing is read on either side until neither sender gets on for five seconds.
    const held: number[][] = []
    let still = 0
    let before = ''
    const watch = setInterval(() => {
      const now = [from.sentMib(), (late?.bytesRead ?? 0) / 2 ** 20]
      still = `${now}` === before && late && now[0]! > 0 ? still + 1 : 0
      before = `${now}`
      if (still < 5 || waiting.length === 0) return
      clearInterval(watch)
      held.push(now)
      late!.resume()
      for (const socket of waiting) socket.end()
    }, 1000)
    const script = `mkfifo /tmp/open; exec 3<>/tmp/open
wget -qO- http://10.0.2.2:${from.port}/ | (nc 10.0.2.2 ${gate} <&3; md5sum | cut -d' ' -f1) &
dd if=/dev/zero bs=64k count=${ALL * 16} 2>/tmp/dd | nc 10.0.2.2 ${sink}; wait`
    const out = await run([from.port, sink, gate], script)
    clearInterval(watch)
    expect(out.trim()).toBe(md5(stream(ALL)))
    expect(sums).toEqual([md5([new Uint8Array(ALL << 20)])])
    expect(held.length).toBe(1)
    expect(Math.max(...held[0]!)).toBeLessThan(HELD)
  })

  it("Debian's apt-get takes its lists from a mirror", async () => {
    const list = Buffer.from(
      `Package: greeting\nVersion: 1.2-3\nArchitecture: all\nMaintainer: a test <test@localhost>\nDescription: says hello\nFilename: pool/greeting.deb\nSize: 6\nMD5sum: ${md5([Buffer.from('hello\n')])}\n\n`,
    )
    const packed = gzipSync(list)
    const entry = (bytes: Buffer, name: string): string =>
      ` ${createHash('sha256').update(bytes).digest('hex')} ${bytes.length} main/binary-amd64/${name}\n`
    const release = `Origin: test\nSuite: stable\nCodename: bookworm\nArchitectures: amd64\nComponents: main\nDate: ${new Date().toUTCString()}\nSHA256:\n${entry(list, 'Packages')}${entry(packed, 'Packages.gz')}`
    const files: Record<string, string | Uint8Array> = {
      '/debian/dists/bookworm/Release': release,
      '/debian/dists/bookworm/main/binary-amd64/Packages.gz': packed,
    }
    const asked: string[] = []
    const port = await listening(
      createHttp(({ url = '' }, response) => {
        asked.push(url)
        const file = files[url]
        response.writeHead(file === undefined ? 404 : 200).end(file)
      }),
    )
    const script = `mkdir -p /etc/apt/apt.conf.d /etc/apt/preferences.d /var/lib/apt/lists/partial /var/cache/apt/archives/partial /var/lib/dpkg /var/log/apt
touch /var/lib/dpkg/status
echo 'deb [trusted=yes] http://10.0.2.2:${port}/debian bookworm main' > /etc/apt/sources.list
apt-get -o APT::Sandbox::User=root update >/tmp/said 2>&1; echo "ended with $?"
apt-cache policy greeting | grep Candidate || cat /tmp/said`
    const out = await run([port], script, {}, { include: ['apt', 'dpkg'] })
    expect(
      out
        .trim()
        .split('\n')
        .map((line) => line.trim()),
    ).toEqual(['ended with 0', 'Candidate: 1.2-3'])
    expect(asked).toContain('/debian/dists/bookworm/main/binary-amd64/Packages.gz')
  })

  it.skipIf(spawnSync('passt', ['--version']).error)('passt carries what goes to the host', async () => {
    const port = await listening(createHttp((_request, response) => response.end('by passt\n')))
    const script = `gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'); wget -qO- http://$gateway:${port}/`
    expect(await run([], script, { network: 'passt', loopback: undefined })).toBe('by passt\n')
  })
})
