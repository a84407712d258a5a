/**
 * Linux's own drivers and network stack against ours: virtio-net under Debian's cloud kernel, e1000 under its generic one. Everything stays on the host's loopback. Takes
 * minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/network.test.ts
 */

import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttp } from 'node:http'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { GuestConsole } from '../testing/console.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const MIB = Number(process.env['NONROOT_NETWORK_MIB'] ?? 16)
const data = randomBytes(MIB << 20)
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const folder = mkdtempSync(join(tmpdir(), 'nonroot-network-'))
const servers: Server[] = []
/** Sums of what came to the sink. */
const sunk: string[] = []
let http = 0
let sink = 0

const listening = (server: Server): Promise<number> =>
  new Promise((resolve) => {
    servers.push(server)
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port))
  })

beforeAll(async () => {
  http = await listening(createHttp((_request, response) => response.end(data)))
  sink = await listening(
    createServer({ allowHalfOpen: true }, (socket) => {
      const hash = createHash('sha256')
      socket.on('data', (bytes) => hash.update(bytes))
      socket.on('error', () => {})
      socket.on('end', () => {
        sunk.push(hash.digest('hex'))
        socket.end('taken\n')
      })
    }),
  )
})
afterAll(() => {
  for (const server of servers) server.close()
  rmSync(folder, { recursive: true, force: true })
})

const stackWith = (name: string, card: object): string => {
  const file = join(folder, `${name}.yaml`)
  const stack = {
    apiVersion: 'nonroot/v1',
    extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
    stack: { io: [{ use: '@nonroot/io-emulated' }, { use: '@nonroot/io-virtio' }] },
    devices: [card],
  }
  writeFileSync(file, JSON.stringify(stack))
  return file
}

const run = async (stack: string, guest: readonly string[], script: string): Promise<string[]> => {
  const { out, err } = await spawnCli(['run', stack, ...guest, '--timeout', '30m', '--', 'sh', '-c', script], { env })
  return (out === '' ? err : out).trim().split('\n')
}
/** Kernel's words about the card, at level warning or worse. */
const COMPLAINTS = `dmesg -r | grep '^<[0-4]>' | grep -iE 'eth|e1000|virtio|TCP|neigh'`
const transfers = (): string => `
wget -qO- http://10.0.2.2:${http}/ | sha256sum | cut -d' ' -f1
wget -qO /tmp/data http://10.0.2.2:${http}/ && nc 10.0.2.2 ${sink} < /tmp/data
`

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian on a network', { timeout: 2_000_000 }, () => {
  it.each([
    { kind: 'virtio-net', flavour: 'cloud' },
    { kind: 'e1000', flavour: 'generic' },
  ] as const)('$kind: addresses, names, transfers both ways, and no complaint', async ({ kind, flavour }) => {
    const stack = stackWith(kind, { kind, network: 'user', loopback: [http, sink] })
    // wget takes no -T: with it Debian's busybox, on real machines too, ends in a segmentation fault where it cannot connect.
    const script = `
basename $(readlink /sys/class/net/eth0/device/driver)
ip -4 -o addr show eth0 | grep -o '10.0.2.15/24'
i=0; until ip -6 -o addr show eth0 scope global | grep -v tentative | grep -qo 'fd6e:6f6e:726f:6f74:'; do i=$((i+1)); [ $i -lt 50 ] || break; usleep 100000; done
ip -6 -o addr show eth0 scope global | grep -o 'fd6e:6f6e:726f:6f74:'
nslookup -type=a localhost | grep -A9 Name: | grep -o 'Address: 127.0.0.1' | head -1
ping -c 1 -W 20 10.0.2.2 | grep -o '1 packets received'
ping -6 -c 1 -W 20 fd6e:6f6e:726f:6f74::2 | grep -o '1 packets received'
wget -qO- http://10.0.2.2:1/ 2>&1 | grep -o 'Connection refused'
wget -qO- http://127.0.0.1:${http}/ 2>&1 | grep -o 'Connection refused'
${transfers()}${COMPLAINTS}
`
    const lines = await run(stack, await guestOf(flavour), script)
    expect(lines).toEqual([
      kind === 'virtio-net' ? 'virtio_net' : 'e1000',
      '10.0.2.15/24',
      'fd6e:6f6e:726f:6f74:',
      'Address: 127.0.0.1',
      '1 packets received',
      '1 packets received',
      'Connection refused',
      'Connection refused',
      sha256(data),
      'taken',
    ])
    expect(sunk.pop()).toBe(sha256(data))
  })

  it('a bad cable delays transfers, and changes nothing in them', async () => {
    const impair = { loss: 0.01, duplicate: 0.01, reorder: 0.02, delayMs: 1, seed: 1 }
    const stack = stackWith('bad', { kind: 'virtio-net', network: 'user', loopback: [http, sink], impair })
    const lines = await run(stack, await guestOf('cloud'), transfers())
    expect([...lines, sunk.pop()]).toEqual([sha256(data), 'taken', sha256(data)])
  })

  it('a port of the host leads into the guest', async () => {
    const probe = createServer()
    const port = await listening(probe)
    await new Promise((resolve) => probe.close(resolve))
    const stack = stackWith('forward', { kind: 'virtio-net', network: 'user', forward: [`127.0.0.1:${port}:80`] })
    const guest = new GuestConsole(['run', stack, ...(await guestOf('cloud')), '--timeout', '20m'], env)
    await guest.expect(/# /, 600)
    guest.type('ifconfig eth0 up; udhcpc -i eth0 -n -q -s /nonroot/lease; mkdir /www; echo hello from the guest > /www/index.html; httpd -p 80 -h /www; echo READY$((6*7))\n')
    await guest.expect(/READY42/, 300)
    const page = await (await fetch(`http://127.0.0.1:${port}/index.html`)).text()
    // One that connects to a port where nobody listens is turned away by the guest.
    guest.type('killall httpd; echo GONE$((6*7))\n')
    await guest.expect(/GONE42/, 300)
    const refused = await new Promise((resolve) => {
      const socket = connect({ port, host: '127.0.0.1' })
      socket.on('close', () => resolve('closed'))
      socket.on('error', () => {})
    })
    guest.type('poweroff\n')
    await guest.end()
    expect([page, refused]).toEqual(['hello from the guest\n', 'closed'])
  })

  it('two VMs of two processes talk through a hub', async () => {
    const hub = `test-${process.pid}`
    const card = { kind: 'virtio-net', network: `hub:${hub}` }
    const guest = await guestOf('cloud')
    const address = (last: number) => `ip link set eth0 up; ip addr add 10.9.0.${last}/24 dev eth0\n`
    const server = run(
      stackWith('hub1', card),
      guest,
      // Its input stays open: at its end nc closes the connection's other direction, and the client stops.
      `${address(1)} mkfifo /tmp/open; exec 3<>/tmp/open; nc -l -p 99 <&3 > /tmp/got; sha256sum < /tmp/got | cut -d' ' -f1`,
    )
    const client = run(
      stackWith('hub2', { ...card, capture: './hub.pcap' }),
      guest,
      `${address(2)} dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null; sha256sum < /tmp/data | cut -d' ' -f1
i=0; until nc 10.9.0.1 99 < /tmp/data; do i=$((i+1)); [ $i -lt 100 ] || break; sleep 1; done`,
    )
    const [[got], [sent]] = await Promise.all([server, client])
    expect(sent).toMatch(/^[0-9a-f]{64}$/)
    expect(got).toBe(sent)
  })
})
