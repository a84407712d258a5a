import { describe, expect, it } from 'vitest'
import type { StackConfig } from '@nonroot/hypervisor'
import { attached, deviceSettings } from './attached.ts'
import { planNetwork } from './network-plan.ts'

const config = (
  devices: object[] = [],
  clock = 'wall',
  io: object[] = [{ use: '@nonroot/io-emulated' }],
): StackConfig => ({ devices, machine: { clock }, stack: { io } }) as unknown as StackConfig
const MODEL = 'stack.io.1={"use":"@nonroot/io-virtio"}'
const CARD = { kind: 'virtio-net', network: 'user' }

describe('the network of a run', () => {
  it.each([
    { what: 'no stack was named', options: { usual: true }, device: CARD, dhcp: true },
    { what: 'a stack was named', options: { usual: false }, dhcp: false },
    { what: 'none is wanted', options: { usual: true, network: 'none' }, dhcp: false },
    { what: 'the run is to repeat', options: { usual: true }, of: config([], 'deterministic'), dhcp: false },
    {
      what: 'there are devices, and virtio',
      options: { usual: false, network: 'user' },
      of: config([{ kind: 'virtio-rng' }], 'wall', [{ use: '@nonroot/io-virtio' }]),
      device: CARD,
      dhcp: true,
    },
    {
      what: 'a hub, where nobody gives addresses',
      options: { usual: true, network: 'hub:a' },
      device: { ...CARD, network: 'hub:a' },
      dhcp: false,
    },
    {
      what: 'ports are forwarded and opened',
      options: { usual: true, forward: ['2222:22'], loopback: ['80', '81'] },
      device: { ...CARD, forward: ['2222:22'], loopback: [80, 81] },
      dhcp: true,
    },
    {
      what: 'the stack has a card',
      options: { usual: false },
      of: config([{ kind: 'virtio-net' }]),
      dhcp: true,
    },
    {
      what: "the stack's guests have Xen's drivers",
      options: { usual: false, network: 'user' },
      of: config([], 'wall', [{ use: '@nonroot/io-xen' }]),
      device: { ...CARD, kind: 'xen-netback' },
      dhcp: true,
    },
    {
      what: 'the stack has a card on a hub',
      options: { usual: false },
      of: config([{ kind: 'virtio-net', network: 'hub:a' }]),
      dhcp: false,
    },
  ])('$what', ({ options, of = config(), device, dhcp }) => {
    expect(planNetwork(options, of)).toEqual({ ...(device ? { device } : {}), dhcp })
  })

  it.each([
    { what: 'the first device', of: config(), set: [`devices=[${JSON.stringify(CARD)}]`, MODEL] },
    { what: 'a further device', of: config([{ kind: 'virtio-rng' }], 'wall', [{ use: '@nonroot/io-virtio' }]), set: [`devices.1=${JSON.stringify(CARD)}`] },
    { what: 'several', of: config([{ kind: 'e1000' }]), added: [CARD, { kind: 'virtio-blk' }], set: [`devices.1=${JSON.stringify(CARD)}`, 'devices.2={"kind":"virtio-blk"}', MODEL] },
    { what: "Xen's", of: config(), added: [{ kind: 'xen-netback' }], set: ['devices=[{"kind":"xen-netback"}]'] },
    { what: 'none', of: config(), added: [], set: [] },
  ])('attaches $what', ({ of, added = [CARD], set }) => {
    expect(attached(of, added)).toEqual(set)
  })

  it.each([
    { text: 'virtio-rng', set: ['devices[1].kind=virtio-rng'] },
    { text: 'virtio-blk,image=a,,b.img,readOnly=true', set: ['devices[1].kind=virtio-blk', 'devices[1].image=a,b.img', 'devices[1].readOnly=true'] },
    { text: 'a,b[0].c=1=2', set: ['devices[1].kind=a', 'devices[1].b[0].c=1=2'] },
  ])('has a device --device $text', ({ text, set }) => {
    expect(deviceSettings(config([{ kind: 'e1000' }]), [text])).toEqual(set)
  })

  it.each([
    { text: '', says: 'there is no kind in it' },
    { text: 'image=a', says: 'there is no kind in it' },
    { text: 'virtio-blk,a.img', says: '"a.img" is no OPTION=VALUE' },
    { text: 'virtio-blk,', says: '"" is no OPTION=VALUE' },
  ])('refuses --device $text', ({ text, says }) => {
    expect(() => deviceSettings(config(), [text])).toThrow(`--device ${text}: ${says}`)
  })

  it('is not said twice', () => {
    const twice = () => planNetwork({ usual: false, network: 'user' }, config([{ kind: 'virtio-net' }]))
    expect(twice).toThrow('has a network card (virtio-net) already')
  })
})
