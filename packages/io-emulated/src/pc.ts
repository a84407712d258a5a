/** The PC as an I/O model: its parts, wired. Knows what there is and where; each part knows itself. */

import type { Device, DeviceContext, IoModel, IoModelContext, PlatformDescription } from '@nonroot/contracts'
import { AcpiPm } from './acpi-pm.ts'
import { PcInterruptController } from './apic/interrupt-controller.ts'
import { CmosRtc } from './cmos-rtc.ts'
import { DebugConsole } from './debug-console.ts'
import { DebugExit } from './debug-exit.ts'
import { Dma8237 } from './dma8237.ts'
import type { PcOptions } from './options.ts'
import { PciHost } from './pci/host-bridge.ts'
import { Pit8254 } from './pit8254.ts'
import { Gsi, PC_PLATFORM, Place, SERIAL_PORTS } from './platform.ts'
import { ResetControl } from './reset-control.ts'
import { SystemControl } from './system-control.ts'
import { Uart16550 } from './uart16550.ts'

export interface Pc extends IoModel {
  readonly interruptController: PcInterruptController
  readonly pciBus: PciHost
  readonly devices: ReadonlyMap<string, Device>
}

export function createPc(options: PcOptions, context: IoModelContext): Pc {
  const devices = new Map<string, Device>()
  const interruptController = new PcInterruptController(context.child('interrupts'), {
    vcpuCount: context.vcpuCount,
    ioApicAddress: Place.ioApic,
  })
  const line = (gsi: number) => interruptController.line(gsi)!
  const add = <D extends Device>(name: string, create: (context: DeviceContext) => D): D => {
    const device = create(context.child(name))
    devices.set(name, device)
    return device
  }

  const pit = add('pit', (child) => new Pit8254(child, line(Gsi.timer)))
  add('systemControl', (child) => new SystemControl(child, pit))
  add('rtc', (child) => new CmosRtc(child, line(Gsi.rtc), context))
  const acpi = add('acpi', (child) => new AcpiPm(child, Place.acpiBlock, line(Gsi.sci)))
  const reset = new ResetControl(context.power)
  const pciBus = add(
    'pci',
    (child) => new PciHost(child, { interrupts: interruptController, reset, acpi: acpi.region }),
  )
  add('dma', (child) => new Dma8237(child))
  if (options.serial)
    add('uart0', (child) => new Uart16550(child, SERIAL_PORTS[0], line(Gsi.serial[0]), context.console))
  if (options.debugExit) new DebugExit(context, Place.debugExit)
  if (options.debugConsole !== 'off') {
    const byte = new Uint8Array(1)
    const write = (value: number): void => {
      byte[0] = value
      context.console.write(byte)
    }
    for (const port of [0xe9, 0x402])
      new DebugConsole(context, port, options.debugConsole === 'console' ? write : undefined)
  }

  return {
    interruptController,
    pciBus,
    devices,
    describe: (): PlatformDescription => ({
      ...PC_PLATFORM,
      ...(options.serial ? { serial: [{ port: SERIAL_PORTS[0], gsi: Gsi.serial[0] }] } : {}),
    }),
  }
}
