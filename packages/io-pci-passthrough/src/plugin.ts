/** What this package adds to a stack. */

import { API_VERSION, defineDevice, defineHostModel, defineIoModel, definePlugin, noOptions } from '@nonroot/contracts'
import { z } from 'zod'
import { AssignedFunction } from './device.ts'
import { RemoteFunction } from './vfio-user/device.ts'
import { createHostIommu, createIntelIommu } from './vtd/model.ts'

export const assignedOptions = z.strictObject({
  /** The function's address on the host, as in `host: { devices: [{ kind: nvme, at: "01:00.0" }] }`. */
  host: z.string().regex(/^[\da-f]{2}:[01][\da-f]\.[0-7]$/, 'an address on the host, as in "01:00.0"'),
})

export const remoteOptions = z.strictObject({
  /** The UNIX socket on which a vfio-user server listens: `nonroot device serve` makes one. */
  socket: z.string().min(1),
})

export default definePlugin({
  name: '@nonroot/io-pci-passthrough',
  apiVersion: API_VERSION,
  strategies: [
    defineHostModel({
      name: 'intel-iommu',
      summary: "the host's IOMMU, as in VT-d: DMA and interrupt remapping, posted interrupts",
      options: noOptions,
      create: createHostIommu,
    }),
    defineIoModel({
      name: 'intel-iommu',
      summary: "an IOMMU in front of the guest's devices, as in VT-d: DMA remapping",
      options: noOptions,
      needs: ['acpi'],
      create: createIntelIommu,
    }),
  ],
  devices: [
    defineDevice({
      kind: 'pci-passthrough',
      summary: "a device of the host, assigned: the guest's accesses reach it without an exit",
      options: assignedOptions,
      needs: ['pci'],
      create: (options, context) => AssignedFunction.create(options, context),
    }),
    defineDevice({
      kind: 'vfio-user',
      summary: 'a PCI function that another process serves, by vfio-user over a UNIX socket',
      options: remoteOptions,
      needs: ['pci'],
      create: (options, context) => RemoteFunction.create(options, context),
    }),
  ],
})
