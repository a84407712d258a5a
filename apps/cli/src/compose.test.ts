/** A stack into its parts: created in order, once, and not at all if one fails. */

import { join } from 'node:path'
import { createNodeModuleSource } from '@nonroot/host-node'
import { composeHost, loadStack } from '@nonroot/hypervisor'
import type { Stack } from '@nonroot/hypervisor'
import { createDeviceBench, createTestHostMemory, createTestLog, createTestMetrics } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { fixtures } from './testing/cli.ts'

const load = (...set: string[]): Promise<Stack> =>
  loadStack(join(fixtures, 'good.yaml'), { source: createNodeModuleSource(), set })

async function compose(stack: Stack) {
  const hostMemory = createTestHostMemory(2048)
  const bench = createDeviceBench({ hostMemory })
  const host = await composeHost(stack, { hostMemory, metrics: createTestMetrics(), log: createTestLog() })
  const vm = () =>
    host.createVmParts(stack, {
      guestMemory: bench.guestMemory,
      guestFrames: bench.guestMemory,
      clock: bench.clock,
      vcpuCount: 1,
      metrics: createTestMetrics(),
      log: createTestLog(),
      ioContext: () => ({ ...bench.context, vcpuCount: 1 }) as never,
      deviceContext: () => bench.context,
    })
  return { host, vm, bench, stack }
}

describe('composing', () => {
  it('creates each part once, VMs apart from each other', async () => {
    const { host, vm, stack } = await compose(await load())
    expect(await host.cpuOf(stack)).toEqual({ what: 'assisted' })
    expect(await host.cpuOf(await load())).toBe(await host.cpuOf(stack))
    const [one, two] = [await vm(), await vm()]
    expect(one.paging).toEqual({ what: 'nested' })
    expect(one.paging).not.toBe(two.paging)
    expect([...one.devices.keys()]).toEqual(['counter0'])
    expect(one.boot).toEqual({ what: 'linux' })
  })

  it('swaps an implementation by one line of configuration', async () => {
    const { vm } = await compose(await load('stack.paging.strategy=shadowing'))
    expect((await vm()).paging).toEqual({ what: 'shadowing' })
  })

  it.each(['ept', 'shadow'])('creates the shipped %s paging, chosen by one line', async (strategy) => {
    const stack = await load(`stack.paging={ use: "@nonroot/mmu", strategy: ${strategy} }`)
    expect(stack.paging).toMatchObject({ package: { name: '@nonroot/mmu' }, definition: { name: strategy } })
    const { paging } = await (await compose(stack)).vm()
    expect(typeof paging.onMemoryChange).toBe('function')
    paging.dispose()
  })

  it('names a device whose create throws, and leaves the host fit for the next VM', async () => {
    const stack = await load('devices[1]={ kind: broken }')
    const { vm, bench } = await compose(stack)
    await expect(vm()).rejects.toMatchObject({
      code: 'device.create',
      message: 'devices[1]: test-parts@1.2.3 broken could not be created: no luck today',
    })
    // What was created before it is gone.
    expect(bench.log.lines).toEqual(['info: counter disposed'])
    // Nothing stays bound: the same VM without the device works.
    const fine = { ...stack, devices: stack.devices.slice(0, 1) }
    expect((await (await compose(fine)).vm()).devices.size).toBe(1)
  })
})
