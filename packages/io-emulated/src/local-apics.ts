/** The platform of a guest without PC hardware: local APICs, and registers of hardware-reduced ACPI. (ACPI, "Sleep Control and Status Registers") */

import { gpa, VcpuVectors } from '@nonroot/contracts'
import type { IoModel, IoModelContext, PlatformDescription } from '@nonroot/contracts'
import { SLEEP_TYPE_S5 } from './acpi-pm.ts'
import { PcInterruptController } from './apic/interrupt-controller.ts'
import { APIC_DEFAULT_BASE } from './apic/registers.ts'
import { Place } from './pc-addresses.ts'

const CONTROL = 0
const STATUS = 1
const Sleep = { enable: 0x20, typeShift: 2, type: 7 } as const

export function createLocalApics(_options: unknown, context: IoModelContext): IoModel {
  const { power, vcpuCount } = context
  context.portIo(Place.acpiBlock, 2, {
    read: () => 0,
    write(offset, _size, value) {
      if (offset !== CONTROL || !(value & Sleep.enable)) return
      if (((value >>> Sleep.typeShift) & Sleep.type) === SLEEP_TYPE_S5) power.powerOff()
    },
  })
  const interruptController = new PcInterruptController(context.child('interrupts'), {
    vcpuCount,
    ioApicAddress: undefined,
  })
  return {
    interruptController,
    offers: new Map([[VcpuVectors, () => interruptController]]),
    describe: (): PlatformDescription => ({
      localApic: { address: gpa(APIC_DEFAULT_BASE) },
      reducedAcpi: {
        sleepControl: Place.acpiBlock + CONTROL,
        sleepStatus: Place.acpiBlock + STATUS,
        sleepTypeS5: SLEEP_TYPE_S5,
      },
    }),
  }
}
