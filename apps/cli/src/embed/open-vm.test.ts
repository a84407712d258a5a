/** VMs as an embedder sees them, with guests of a few instructions. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exec, folderWith, isBuiltTested, node } from '../testing/cli.ts'
import { Code, multibootGuest } from '../testing/guests.ts'
import { openVm } from './open-vm.ts'
import type { VmSettings } from './open-vm.ts'

let folder: string
let remove: () => void
beforeAll(async () => ({ folder, remove } = await folderWith({})))
afterAll(() => remove())

/** The smoke runs more of them. */
const VMS = process.env['NONROOT_SMOKE'] ? 20 : 6
const SMALL = ['machine.memory=8MiB', 'stack.cpu.codeCacheMiB=8']
async function guest(name: string, ...code: (readonly number[])[]): Promise<VmSettings> {
  const kernel = join(folder, `${name}.elf`)
  await writeFile(kernel, multibootGuest(code.flat()))
  return { image: { kernel }, set: SMALL }
}

describe('openVm', { timeout: 300_000 }, () => {
  it('runs a guest, with its console, its events and its end', async () => {
    await using vm = await openVm(await guest('echo', Code.print('hi\n'), ...Array(3).fill(Code.echo), Code.exit(5)))
    const events: string[] = []
    const reading = (async () => {
      for await (const event of vm.events()) if (event.kind !== 'output') events.push(event.kind)
    })()
    const reader = vm.console.output.getReader()
    let text = ''
    while (!text.includes('hi\n')) text += Buffer.from((await reader.read()).value!).toString()
    expect((await vm.info())?.state).toBe('running')
    await vm.pause()
    await vm.resume()
    await vm.console.input.getWriter().write('abc')
    expect(await vm.ended).toEqual({ state: 'exited', status: 5 })
    await reading
    expect(events).toEqual(['paused', 'resumed', 'ended'])
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += Buffer.from(next.value).toString()
    expect(text).toBe('hi\nabc')
  })

  it.each([
    { what: 'a stack that is not there', settings: { stack: 'nope' }, says: 'there is no stack "nope"', code: 'config.file' },
    { what: 'a kernel that is not there', settings: { image: { kernel: '/nope' } }, says: 'cannot read the kernel /nope: there is no such file', code: 'host.file' },
    { what: 'a value that is wrong', settings: { set: ['machine.vcpus=0'] }, says: 'machine.vcpus', code: 'config.schema' },
  ])('rejects $what', async ({ settings, says, code }) => {
    await expect(openVm(settings)).rejects.toMatchObject({ name: 'NonrootError', code, message: expect.stringContaining(says) as string })
  })

  it('says why there are no commands', async () => {
    await using vm = await openVm(await guest('loop', Code.loop))
    await expect(vm.exec(['true'])).rejects.toThrow('vm has no agent in its guest: its image is not one that nonroot made')
  })

  it('ends by an AbortSignal, before it runs and while it does', async () => {
    const loop = await guest('loop', Code.loop)
    await expect(openVm({ ...loop, signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    const controller = new AbortController()
    await using vm = await openVm({ ...loop, signal: controller.signal })
    controller.abort()
    expect(await vm.ended).toEqual({ state: 'stopped' })
  })

  it(`leaves nothing behind: ${VMS} VMs, one after the other`, async () => {
    const { image } = await guest('loop', Code.loop)
    const script = `
      import { openVm } from ${JSON.stringify(new URL(isBuiltTested ? '../../dist/embed/open-vm.js' : './open-vm.ts', import.meta.url).href)}
      const once = async () => { await using vm = await openVm(${JSON.stringify({ image, set: SMALL })}) }
      const rss = async () => { await new Promise((resolve) => setTimeout(resolve, 200)); gc(); return process.memoryUsage().rss }
      await once()
      const before = await rss()
      for (let count = 0; count < ${VMS}; count++) await once()
      console.log(JSON.stringify({ grown: (await rss()) - before, handles: process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap') }))`
    const { out, err } = await exec(node[0]!, [...node.slice(1), '--expose-gc', '-e', script])
    expect(err).toBe('')
    const { grown, handles } = JSON.parse(out) as { grown: number; handles: string[] }
    expect(handles).toEqual([])
    expect(grown).toBeLessThan(64 * 2 ** 20)
  })
})
