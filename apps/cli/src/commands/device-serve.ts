/** `nonroot device serve`: a PCI device of a plugin, in a process of its own, for the VMs of another one by vfio-user. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import type { BlockingStream } from '@nonroot/contracts'
import { createNodeBackends, listenBlocking } from '@nonroot/host-node'
import { createHostMemory, createLog, createMetrics, HostMachine } from '@nonroot/hypervisor'
import { RemoteMemory, VfioUserServer } from '@nonroot/io-pci-passthrough'
import { defaultStack, moduleSource } from '../host.ts'
import type { CommandIo } from '../io.ts'
import { load } from './load.ts'

/** Its DMA goes to the client: a page and what the kernel itself keeps. */
const HOST_MEMORY = 4 << 20
const PLACE = '01:00.0'

export interface DeviceServeOptions {
  readonly device: string
  readonly verbose?: boolean
}

export async function deviceServe(
  socket: string,
  { device, verbose }: DeviceServeOptions,
  io: CommandIo,
): Promise<number> {
  const stack = await load(defaultStack(), [`host=${JSON.stringify(hostOf(device))}`])
  const source = moduleSource()
  const memory = new RemoteMemory()
  const log = createLog((level, message) => io.err(`${level}: ${message}\n`), verbose ? 'debug' : 'info')
  const machine = await HostMachine.create({
    ...stack.host,
    memory: createHostMemory(HOST_MEMORY),
    dma: memory,
    backends: createNodeBackends({
      block: async () => (await import('@nonroot/image')).diskParts,
      network: async () => import('@nonroot/network'),
    }),
    metrics: createMetrics(),
    log,
    resolvePath: (folder, path) => source.resolvePath(folder, path),
  })
  try {
    const host = { bus: machine.bus, interrupt: (handler: () => void) => machine.interrupts.allocate(handler) }
    const server = new VfioUserServer(host, await machine.take(PLACE, 'client'), memory, { log })
    let last: Promise<unknown> = Promise.resolve()
    const serve = (stream: BlockingStream): void => {
      last = last.then(async () => {
        log.info('a client has connected')
        log.info(`the client is gone: ${await server.serve(stream)}`)
      })
    }
    const listener = await listenBlocking(source.resolvePath(source.workingFolder, socket), serve)
    io.out(`${stack.host.devices[0]!.definition.kind} is served at ${socket}\n`)
    // Threads do not keep a process.
    const alive = setInterval(() => {}, 1 << 30)
    await new Promise<void>((resolve) => {
      process.once('SIGINT', resolve)
      process.once('SIGTERM', resolve)
    })
    clearInterval(alive)
    await listener.close()
    await server.dispose()
    await last
  } finally {
    await machine.dispose()
  }
  return ExitCode.ok
}

/** `nvme,image=./disk.img,readOnly=true`, as the host of a stack file. */
export function hostOf(device: string): Record<string, unknown> {
  const [kind = '', ...pairs] = device.split(',')
  const options = pairs.map((pair): [string, unknown] => {
    const at = pair.indexOf('=')
    if (at <= 0) {
      throw new NonrootError({
        code: 'usage',
        message: `--device ${device}: "${pair}" is no option`,
        thing: '--device',
        value: device,
        remedy: 'write --device KIND,OPTION=VALUE,..., as in nvme,image=./disk.img',
      })
    }
    return [pair.slice(0, at), valueOf(pair.slice(at + 1))]
  })
  return {
    io: [{ use: '@nonroot/io-emulated', strategy: 'pci' }],
    devices: [{ ...Object.fromEntries(options), kind, at: PLACE }],
  }
}

/** Numbers and truth values as in JSON; everything else is text. */
const valueOf = (text: string): unknown => (/^(true|false|\d+)$/.test(text) ? JSON.parse(text) : text)
