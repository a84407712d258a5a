/** The package as a plugin: its boot protocols by the names that a configuration gives them. */
import { API_VERSION, defineBoot, definePlugin } from '@nonroot/contracts'
import { z } from 'zod'
import { createFirmware } from './firmware.ts'
import { createLinux } from './linux.ts'
import { createMultiboot } from './multiboot.ts'
import { createPvh } from './pvh.ts'
import { createXenPv } from './xen-pv.ts'

const file = z.string().min(1)
const cmdline = z.string().optional()
const modules = z.array(z.strictObject({ content: file, cmdline: z.string().default('') })).optional()

/** Without the keys that are undefined: an absent file is not a file called undefined. */
const given = <T extends object>(fields: T) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>
  }

export default definePlugin({
  name: '@nonroot/boot',
  apiVersion: API_VERSION,
  strategies: [
    defineBoot({
      name: 'linux',
      summary: 'Linux: bzImage by its 64-bit or 32-bit entry, or an ELF vmlinux',
      options: z.strictObject({
        kernel: file.optional(),
        initrd: file.optional(),
        cmdline,
        entry: z.enum(['auto', '64-bit', '32-bit']).default('auto'),
      }),
      image: ({ kernel, initrd, cmdline }) => given({ kernel, initrd, cmdline }),
      create: ({ entry }) => createLinux({ entry }),
    }),
    defineBoot({
      name: 'pvh',
      summary: 'PVH: an ELF kernel with a Xen note, in 32-bit protected mode',
      options: z.strictObject({ kernel: file.optional(), initrd: file.optional(), modules, cmdline }),
      image: ({ kernel, initrd, modules, cmdline }) => given({ kernel, initrd, modules, cmdline }),
      create: () => createPvh(),
    }),
    defineBoot({
      name: 'xen-pv',
      summary: "Xen's paravirtual start of day: an ELF kernel with Xen notes, in page tables built for it",
      options: z.strictObject({ kernel: file.optional(), initrd: file.optional(), cmdline }),
      needs: ['pvEntry'],
      image: ({ kernel, initrd, cmdline }) => given({ kernel, initrd, cmdline }),
      create: () => createXenPv(),
    }),
    defineBoot({
      name: 'multiboot',
      summary: 'Multiboot 1: ELF or a.out-kludge kernels with modules',
      options: z.strictObject({ kernel: file.optional(), modules, cmdline }),
      image: ({ kernel, modules, cmdline }) => given({ kernel, modules, cmdline }),
      create: () => createMultiboot(),
    }),
    defineBoot({
      name: 'firmware',
      summary: 'Flat firmware (SeaBIOS) at the reset vector',
      options: z.strictObject({ image: file }),
      image: ({ image }) => ({ firmware: image }),
      create: () => createFirmware(),
    }),
  ],
})
