/** The plugin definition: what this package adds to a stack. */

import { API_VERSION, defineDevice, defineHostModel, defineIoModel, definePlugin, noOptions } from '@nonroot/contracts'
import { z } from 'zod'
import { Ahci } from './ahci/device.ts'
import { E1000 } from './e1000/device.ts'
import { Ide } from './ide/device.ts'
import { createLocalApics } from './local-apics.ts'
import { Nvme } from './nvme/device.ts'
import { cardOptions, diskOptions, pcOptions, uartOptions } from './options.ts'
import { createPc } from './pc.ts'
import { Gsi, SERIAL_PORTS } from './pc-addresses.ts'
import { createHostPci } from './pci/host-pci.ts'
import { Uart16550 } from './uart16550.ts'

export default definePlugin({
  name: '@nonroot/io-emulated',
  apiVersion: API_VERSION,
  strategies: [
    defineIoModel({
      name: 'pc',
      summary: 'a q35-like PC: APICs, PIC, PIT, RTC, serial port, PCI Express, ACPI hardware',
      options: pcOptions,
      gives: ['interruptController', 'pci', 'acpi'],
      create: createPc,
    }),
    defineIoModel({
      name: 'local-apics',
      summary: 'local APICs and a power switch, and nothing else of a PC: what PVH guests have',
      options: z.strictObject({}),
      gives: ['interruptController', 'acpi'],
      create: createLocalApics,
    }),
    defineHostModel({
      name: 'pci',
      summary: "the host's PCI: functions that can be assigned to VMs",
      options: noOptions,
      gives: ['pci'],
      create: createHostPci,
    }),
  ],
  devices: [
    defineDevice({
      kind: 'uart',
      summary: 'a further 16550A serial port (COM2 to COM4) on a console of its own',
      options: uartOptions,
      create: async ({ com, console }, context) => {
        const backend = await context.backend('console', console === undefined ? {} : { name: console })
        const at = (com - 1) as 0 | 1 | 2 | 3
        return new Uart16550(context, SERIAL_PORTS[at], context.interrupt(Gsi.serial[at]), backend)
      },
    }),
    defineDevice({
      kind: 'ahci',
      summary: 'an emulated disk: a SATA drive on an AHCI controller of its own',
      options: diskOptions,
      needs: ['pci'],
      create: async ({ serial, format, ...disk }, context) => {
        const backend = await context.backend('block', { ...disk, ...(format === undefined ? {} : { format }) })
        return new Ahci(context, backend, { serial: serial ?? context.name })
      },
    }),
    defineDevice({
      kind: 'ide',
      summary: 'an emulated disk: a parallel ATA drive on a PIIX4; one a machine',
      options: diskOptions,
      needs: ['pci'],
      create: async ({ serial, format, ...disk }, context) => {
        const backend = await context.backend('block', { ...disk, ...(format === undefined ? {} : { format }) })
        return new Ide(context, backend, { serial: serial ?? context.name })
      },
    }),
    defineDevice({
      kind: 'nvme',
      summary: 'an emulated disk: an NVMe controller with one namespace',
      options: diskOptions,
      needs: ['pci'],
      create: async ({ serial, format, ...disk }, context) => {
        const backend = await context.backend('block', { ...disk, ...(format === undefined ? {} : { format }) })
        return new Nvme(context, backend, { serial: serial ?? context.name })
      },
    }),
    defineDevice({
      kind: 'e1000',
      summary: 'an emulated network card: an Intel 82540EM',
      options: cardOptions,
      needs: ['pci'],
      create: async (network, context) => new E1000(context, await context.backend('network', network)),
    }),
  ],
})
