/**
 * Linux on networks that have much to do, or are others' programs. All of it stays on the host's loopback. Takes minutes, and the network the first time:
 * NONROOT_DEBIAN=1 npx vitest run src/run/network-load.test.ts
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttp } from 'node:http'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

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

/** What a script in the guest prints, which reaches these ports of the host at its gateway. */
async function run(ports: readonly number[], script: string, card: object = {}): Promise<string> {
  const file = join(folder, 'stack.yaml')
  const stack = {
    apiVersion: 'nonroot/v1',
    extends: 'nonroot/stacks/kvm-like.yaml',
    devices: [{ kind: 'virtio-net', network: 'user', loopback: ports, ...card }],
  }
  writeFileSync(file, JSON.stringify(stack))
  const guest = await guestOf('cloud')
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

  it.skipIf(spawnSync('passt', ['--version']).error)('passt carries what goes to the host', async () => {
    const port = await listening(createHttp((_request, response) => response.end('by passt\n')))
    const script = `gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'); wget -qO- http://$gateway:${port}/`
    expect(await run([], script, { network: 'passt', loopback: undefined })).toBe('by passt\n')
  })
})
