/** The platform device, by what a guest's drivers read and write. (Xen, "HVM emulated device unplug protocol") */

import { PciUnplug, XenPlatform, type Unpluggable } from '@nonroot/contracts'
import { benchDevice, testDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import plugin from './plugin.ts'

const device = plugin.devices!.find(({ kind }) => kind === 'xen-platform')!
const offers = (kinds: Unpluggable[] = [], connected: unknown[] = []): ReadonlyMap<never, unknown> =>
  new Map<never, unknown>([
    [PciUnplug as never, { unplug: (kind: Unpluggable) => kinds.push(kind) && 2 }],
    [XenPlatform as never, { connectDevice: (device: unknown) => connected.push(device) }],
  ])

testDevice(device, {}, it, () => ({ offers: offers() }))

async function start() {
  const kinds: Unpluggable[] = []
  const { device: made, bench } = await benchDevice(device, {}, { offers: offers(kinds) })
  const say = (text: string): void => {
    for (const byte of new TextEncoder().encode(text)) bench.writePort(0x12, byte)
  }
  return { ...bench, made, kinds, say }
}

describe("Xen's platform device", () => {
  it('is found on the PCI bus, with ports and 16 MiB without memory', async () => {
    const { functions } = await start()
    const { vendorId, deviceId, bars } = functions[0]!.description
    expect([vendorId, deviceId, bars![0]!.size, bars![1]!.size]).toEqual([0x5853, 1, 256, 16 << 20])
  })

  it('welcomes each driver: magic number and protocol stay after product and version were written', async () => {
    const { readPort, writePort } = await start()
    const look = (): number[] => [readPort(0x10, 2), readPort(0x12, 1), readPort(0x10, 4), readPort(0x11, 1)]
    expect(look()).toEqual([0x49d2, 1, 0xffff_ffff, 0xff])
    writePort(0x12, 0xffff, 2)
    writePort(0x10, 0xff, 4)
    expect(look()).toEqual([0x49d2, 1, 0xffff_ffff, 0xff])
  })

  it.each<[mask: number, kinds: Unpluggable[]]>([
    [0, []],
    [1, ['disk']],
    [2, ['network']],
    [3, ['disk', 'network']],
    [4, []],
    [8, ['nvme']],
    [0xfff0, []],
  ])('unplugs by mask %#', async (mask, kinds) => {
    const bench = await start()
    bench.writePort(0x10, mask, 2)
    expect(bench.kinds).toEqual(kinds)
  })

  it('logs lines of drivers: printable, at most 200 characters each, and a hundred of them', async () => {
    const { say, log } = await start()
    say('hello\x1b[2J\n')
    say(`${'x'.repeat(300)}\n`)
    expect(log.lines).toEqual(['hello[2J', 'x'.repeat(200), 'x'.repeat(99)].map((text) => `info: ${text}`))
    for (let n = 0; n < 200; n++) say('more\n')
    expect(log.lines).toHaveLength(100)
  })
})
