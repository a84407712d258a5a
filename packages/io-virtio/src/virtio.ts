/** The I/O model: connects each virtio device to a transport. Independent of the device type. */

import { gpa, NonrootError, VirtioTransport } from '@nonroot/contracts'
import type { DeviceContext, IoModel, PlatformDescription } from '@nonroot/contracts'
import type { VirtioOptions } from './options.ts'
import { attachMmio, MMIO_SIZE } from './transport/mmio.ts'
import { attachPci } from './transport/pci.ts'

/** Lines for MMIO devices, in this order: those no PC device has, then PCI's, which has no virtio functions then. */
const LINES = [5, 10, 11, 23, 22, 21, 20, 19, 18, 17, 16]

export function createVirtio(options: VirtioOptions): IoModel {
  const places: NonNullable<PlatformDescription['virtioMmio']>[number][] = []
  const transport = (context: DeviceContext): VirtioTransport => ({
    attach(create) {
      if (options.transport === 'pci') return attachPci(context, create, options)
      const gsi = LINES[places.length]
      if (gsi === undefined) throw tooMany(context.name)
      const { address, core } = attachMmio(context, create, options, context.interrupt(gsi))
      places.push({ address: gpa(address), length: MMIO_SIZE, gsi })
      return core
    },
  })
  return {
    offers: new Map([[VirtioTransport, transport]]),
    describe: () => (places.length > 0 ? { virtioMmio: places } : {}),
  }
}

const tooMany = (name: string): NonrootError =>
  new NonrootError({
    code: 'device.create',
    message: `${name}: there are interrupt lines for ${LINES.length} virtio-mmio devices`,
    thing: name,
    remedy: 'transport: pci has room for more',
  })
