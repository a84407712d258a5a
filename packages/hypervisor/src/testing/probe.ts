/** A hostile device for a host: does the DMA that its registers ask for, asserts its pin, and has a capability and ports that a guest must not reach. */

import { defineDevice, noOptions } from '@nonroot/contracts'
import type { IoHandler } from '@nonroot/contracts'

export const Probe = { address: 0x00, upper: 0x04, data: 0x08, command: 0x0c, result: 0x10 } as const
export const ProbeCommand = { write: 1, read: 2, assertPin: 3, signal: 4 } as const
/** Of BAR 2. */
export const SMALL_BAR = 256
const VENDOR_SPECIFIC = 0x09

/** `touched` gets what reaches the parts that a guest must not reach. */
export const probeDevice = (touched: string[] = []) =>
  defineDevice({
    kind: 'probe',
    summary: 'a device that does whatever DMA its driver asks for',
    options: noOptions,
    create(_options, context) {
      const words = new Uint32Array(8)
      const at = (): number => words[0]! + words[1]! * 2 ** 32
      const hidden = (what: string): IoHandler => ({
        read: () => 0,
        write: () => void touched.push(what),
      })
      const act = (command: number): void => {
        if (command === ProbeCommand.write) words[4] = context.dma.writeU32(at(), words[2]!) ? 1 : 0
        if (command === ProbeCommand.read) words[2] = context.dma.readU32(at()) ?? 0xffff_ffff
        if (command === ProbeCommand.assertPin) pci.interrupt.raise()
        if (command === ProbeCommand.signal) pci.signal(words[2]!)
      }
      const registers: IoHandler = {
        read: (offset) => words[(offset >> 2) & 7]!,
        write(offset, _size, value) {
          words[(offset >> 2) & 7] = value
          if (offset === Probe.command) act(value)
        },
      }
      const pci = context.pci({
        ...{ vendorId: 0x1234, deviceId: 0x0666, classCode: 0xff0000, interruptPin: 'A', msixVectors: 2 },
        bars: {
          0: { kind: 'mmio32', size: 4096, handler: registers },
          1: { kind: 'io', size: 16, handler: hidden('ports') },
          2: {
            kind: 'mmio32',
            size: SMALL_BAR,
            handler: { read: () => 0x5a, write: () => void touched.push('small') },
          },
        },
        capabilities: [
          {
            ...{ id: VENDOR_SPECIFIC, body: new Uint8Array(14), writeMask: new Uint8Array(14).fill(0xff) },
            handler: hidden('capability'),
          },
        ],
      })
      return { reset: () => void words.fill(0) }
    },
  })
