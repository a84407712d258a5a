/** The PC's fixed addresses and interrupt lines. */

import { gpa } from '@nonroot/contracts'
import type { PlatformDescription } from '@nonroot/contracts'
import { APIC_DEFAULT_BASE } from './apic/registers.ts'
import { IO_APIC_PINS, IO_APIC_REQUESTER } from './apic/io-apic.ts'

/** As in the ICH9 with its registers where SeaBIOS puts them, so that firmware for QEMU's q35 finds what it expects. */
export const Place = {
  acpiBlock: 0x600,
  resetControl: 0xcf9,
  debugExit: 0xf4,
  ioApic: 0xfec0_0000,
  hpet: 0xfed0_0000,
  ecam: 0xe000_0000,
  ecamLength: 0x1000_0000,
  pciWindow: 0xc000_0000,
  pciWindowLength: 0x2000_0000,
  vgaText: 0xb_8000,
} as const

/** Global system interrupts: those below 16 are ISA IRQs, the timer excepted. */
export const Gsi = { timer: 2, keyboard: 1, serial: [4, 3, 4, 3], rtc: 8, sci: 9, mouse: 12, coprocessor: 13 } as const
export const SERIAL_PORTS = [0x3f8, 0x2f8, 0x3e8, 0x2e8] as const
/** GSI of a PCI pin: `PCI_INTX[(device + pin) % 8]`. */
export const PCI_INTX = [16, 17, 18, 19, 20, 21, 22, 23] as const

export const PCI_IO_WINDOW = { base: 0x1000, length: 0xf000 } as const

export const PC_PLATFORM = {
  localApic: { address: gpa(APIC_DEFAULT_BASE) },
  ioApics: [{ id: 0, address: gpa(Place.ioApic), gsiBase: 0, pins: IO_APIC_PINS, requesterId: IO_APIC_REQUESTER }],
  legacyPic: true,
  interruptOverrides: [
    { isaIrq: 0, gsi: Gsi.timer, trigger: 'edge', polarity: 'high' },
    { isaIrq: 9, gsi: Gsi.sci, trigger: 'level', polarity: 'high' },
  ],
  rtc: { port: 0x70, gsi: Gsi.rtc },
} as const satisfies PlatformDescription
