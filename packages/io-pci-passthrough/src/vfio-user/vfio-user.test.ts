/** The client by the suite of its protocol, and what the suite cannot wait for: peers that say nothing. */

import type { DeviceDefinition } from '@nonroot/contracts'
import { createDeviceBench, createStreamPair, MockVfioUserServer, testVfioUserClient, VfioUser } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import passthrough, { RemoteFunction } from '../index.ts'

const definition = passthrough.devices!.find(({ kind }) => kind === 'vfio-user')! as DeviceDefinition

describe('a client', () => {
  testVfioUserClient(definition, it)
})

describe('a silent peer', () => {
  const SILENT_MS = 20
  async function connect(script: (server: MockVfioUserServer) => void = () => {}) {
    const [ours, theirs] = createStreamPair()
    const server = new MockVfioUserServer(theirs)
    script(server)
    const bench = createDeviceBench({ backends: { stream: ours } })
    const device = await RemoteFunction.create({ socket: '/peer' }, bench.context, SILENT_MS)
    return { server, bench, device }
  }
  const later = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 4 * SILENT_MS))

  it.each(['version', 'deviceGetInfo', 'regionRead', 'dmaMap'] as const)('at %s is refused', async (command) => {
    const made = connect((server) => server.answers.set(VfioUser[command], () => undefined))
    await expect(made).rejects.toMatchObject({
      code: 'device.create',
      message: expect.stringMatching(
        /the device at \/peer cannot be used: the peer has been silent for 0.02 s/,
      ) as string,
    })
  })

  it('is sent away when it owes a reply to the guest', async () => {
    const { server, bench } = await connect()
    server.answers.set(VfioUser.regionRead, () => undefined)
    const { handler } = bench.functions[0]!.description.bars![0]!
    expect(handler.read(8, 4)).toBe(-1)
    await later()
    expect([handler.read(8, 4), server.peer.closed]).toEqual([0xffff_ffff, true])
    expect(bench.log.lines).toEqual([
      expect.stringMatching(/^warn: \/peer: the peer has been silent for 0.02 s, with 1 requests/) as string,
    ])
  })

  it('that owes nothing stays', async () => {
    const { server } = await connect()
    await later()
    expect(server.peer.closed).toBe(false)
  })
})
