import { describe, expect, it } from 'vitest'
import type { StackConfig } from '@nonroot/hypervisor'
import { planNetwork } from './network-plan.ts'

const config = (
  devices: object[] = [],
  clock = 'wall',
  io: object[] = [{ use: '@nonroot/io-emulated' }],
): StackConfig => ({ devices, machine: { clock }, stack: { io } }) as unknown as StackConfig
const CARD = '{"kind":"virtio-net","network":"user"}'
const MODEL = 'stack.io.1={"use":"@nonroot/io-virtio"}'

describe('the network of a run', () => {
  it.each([
    { what: 'no stack was named', options: { usual: true }, set: [`devices=[${CARD}]`, MODEL], dhcp: true },
    { what: 'a stack was named', options: { usual: false }, set: [], dhcp: false },
    { what: 'none is wanted', options: { usual: true, network: 'none' }, set: [], dhcp: false },
    { what: 'the run is to repeat', options: { usual: true }, of: config([], 'deterministic'), set: [], dhcp: false },
    {
      what: 'there are devices, and virtio',
      options: { usual: false, network: 'user' },
      of: config([{ kind: 'virtio-rng' }], 'wall', [{ use: '@nonroot/io-virtio' }]),
      set: [`devices.1=${CARD}`],
      dhcp: true,
    },
    {
      what: 'a hub, where nobody gives addresses',
      options: { usual: true, network: 'hub:a' },
      set: ['devices=[{"kind":"virtio-net","network":"hub:a"}]', MODEL],
      dhcp: false,
    },
    {
      what: 'ports are forwarded and opened',
      options: { usual: true, forward: ['2222:22'], loopback: ['80', '81'] },
      set: ['devices=[{"kind":"virtio-net","network":"user","forward":["2222:22"],"loopback":[80,81]}]', MODEL],
      dhcp: true,
    },
    {
      what: 'the stack has a card',
      options: { usual: false },
      of: config([{ kind: 'virtio-net' }]),
      set: [],
      dhcp: true,
    },
    {
      what: 'the stack has a card on a hub',
      options: { usual: false },
      of: config([{ kind: 'virtio-net', network: 'hub:a' }]),
      set: [],
      dhcp: false,
    },
  ])('$what', ({ options, of = config(), set, dhcp }) => {
    expect(planNetwork(options, of)).toEqual({ set, dhcp })
  })

  it('is not said twice', () => {
    const twice = () => planNetwork({ usual: false, network: 'user' }, config([{ kind: 'virtio-net' }]))
    expect(twice).toThrow('has a network card (virtio-net) already')
  })
})
