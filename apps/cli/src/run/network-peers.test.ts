/** Networks against programs that we did not write: QEMU's stream netdev and passt, as far as they are installed. Frames only, no guest. */

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NO_OFFLOADS, NO_WORK } from '@nonroot/contracts'
import type { CableEnd, NetworkBackend } from '@nonroot/contracts'
import { createNodeBackends } from '@nonroot/host-node'
import { createTestClock, createTestLog, createTestMetrics } from '@nonroot/testkit'
import { afterAll, describe, expect, it } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-peers-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const installed = (program: string): boolean =>
  spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined
const MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56]
const backends = createNodeBackends({ network: async () => import('@nonroot/network') })

/** A card that waits for a frame. */
function plug(network: NetworkBackend) {
  const frames: Uint8Array[] = []
  let up = true
  const card: CableEnd = {
    offloads: NO_OFFLOADS,
    receive: (frame) => frames.push(frame.slice()) > 0,
    flush: () => {},
    ready: () => {},
    carrier: (on) => void (up = on),
  }
  const clock = createTestClock()
  const far = network.connect(card, { clock, metrics: createTestMetrics(), log: createTestLog() })
  const wait = async (what: (frame: Uint8Array) => boolean): Promise<Uint8Array> => {
    for (let tries = 0; tries < 600; tries++) {
      const found = frames.find(what)
      if (found) return found
      await new Promise((resolve) => setTimeout(resolve, 100))
      clock.advanceNs(1e8)
      clock.runExpired()
    }
    throw new Error('no such frame came')
  }
  return {
    far,
    wait,
    isUp: () => up,
    until: async (on: boolean) => {
      for (let tries = 0; up !== on && tries < 600; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 100))
        clock.advanceNs(1e8)
        clock.runExpired()
      }
    },
  }
}

/** DHCPDISCOVER, in UDP without checksum. */
function discover(): Uint8Array {
  const dhcp = new Uint8Array(300)
  dhcp.set([1, 1, 6, 0, 1, 2, 3, 4])
  dhcp.set(MAC, 28)
  dhcp.set([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255], 236)
  const frame = new Uint8Array(14 + 20 + 8 + dhcp.length)
  const view = new DataView(frame.buffer)
  frame.fill(255, 0, 6)
  frame.set([...MAC, 8, 0, 0x45], 6)
  view.setUint16(16, frame.length - 14)
  frame.set([64, 17], 22)
  frame.fill(255, 30, 34)
  let sum = 0
  for (let at = 14; at < 34; at += 2) sum += view.getUint16(at)
  view.setUint16(24, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff)
  view.setUint16(34, 68)
  view.setUint16(36, 67)
  view.setUint16(38, 8 + dhcp.length)
  frame.set(dhcp, 42)
  return frame
}
const isOffer = (frame: Uint8Array): boolean =>
  frame[23] === 17 && frame[36] === 0 && frame[37] === 68 && frame[42] === 2

describe.skipIf(!installed('qemu-system-x86_64'))("QEMU's stream netdev", { timeout: 120_000 }, () => {
  it.each([
    { side: 'connects', network: 'socket:listen:', server: 'off' },
    { side: 'listens', network: 'socket:', server: 'on' },
  ])('$side: its user network answers', async ({ network, server }) => {
    const path = join(folder, `qemu-${server}.sock`)
    // Its own user-mode network and the stream, joined by its hub; no machine.
    const start = () =>
      spawn(
        'qemu-system-x86_64',
        [
          ...['-M', 'none', '-nodefaults', '-nographic', '-monitor', 'none', '-serial', 'none'],
          ...['-netdev', `stream,id=s,server=${server},addr.type=unix,addr.path=${path}`, '-netdev', 'user,id=u'],
          ...['-netdev', 'hubport,hubid=0,id=a,netdev=s', '-netdev', 'hubport,hubid=0,id=b,netdev=u'],
        ],
        { stdio: 'ignore' },
      )
    const open = () => backends.open('network', { network: network + path })
    let opened: NetworkBackend | undefined
    if (server === 'off') opened = await open()
    const qemu = start()
    try {
      for (let tries = 0; !opened && tries < 300; tries++) {
        opened = await open().catch(() => undefined)
        if (!opened) await new Promise((resolve) => setTimeout(resolve, 100))
      }
      const { far, wait, until, isUp } = plug(opened!)
      await until(true)
      far.receive(discover(), NO_WORK)
      far.flush()
      const offer = await wait(isOffer)
      expect([...offer.subarray(58, 62)]).toEqual([10, 0, 2, 15])
      qemu.kill()
      await until(false)
      expect(isUp()).toBe(false)
    } finally {
      qemu.kill()
      await opened?.close()
    }
  })
})

describe.skipIf(!installed('passt'))('passt', { timeout: 120_000 }, () => {
  it('gives an address', async () => {
    const opened = await backends.open('network', { network: 'passt' })
    try {
      const { far, wait } = plug(opened)
      far.receive(discover(), NO_WORK)
      far.flush()
      const offer = await wait(isOffer)
      expect(offer[58]).toBeGreaterThan(0)
    } finally {
      await opened.close()
    }
  })
})
