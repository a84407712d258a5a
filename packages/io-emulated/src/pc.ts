/** The PC as an I/O model: creates the parts and connects them. What a part does is in its own file. */

import { FirmwareConfiguration, gpa, NumericErrors, PciUnplug, VcpuVectors } from '@nonroot/contracts'
import type {
  Device,
  DeviceContext,
  InterruptLine,
  IoModel,
  IoModelContext,
  PlatformDescription,
  Token,
} from '@nonroot/contracts'
import { AcpiPm } from './acpi-pm.ts'
import { PcInterruptController } from './apic/interrupt-controller.ts'
import { CmosRtc } from './cmos-rtc.ts'
import { CoprocessorError } from './coprocessor-error.ts'
import { DebugConsole } from './debug-console.ts'
import { DebugExit } from './debug-exit.ts'
import { Dma8237 } from './dma8237.ts'
import { e820File, FwCfg, FwCfgKey } from './fw-cfg.ts'
import { GatedLine } from './gated-line.ts'
import { Hpet } from './hpet.ts'
import { I8042 } from './i8042.ts'
import type { PcOptions } from './options.ts'
import { PciHost } from './pci/host-bridge.ts'
import { Pit8254 } from './pit8254.ts'
import { Gsi, PC_PLATFORM, Place, SERIAL_PORTS } from './pc-addresses.ts'
import { ResetControl } from './reset-control.ts'
import { SystemControl } from './system-control.ts'
import { Uart16550 } from './uart16550.ts'
import { VgaText } from './vga-text.ts'

export interface Pc extends IoModel {
  readonly interruptController: PcInterruptController
  readonly pciBus: PciHost
  readonly devices: ReadonlyMap<string, Device>
  readonly firmwareConfiguration: FirmwareConfiguration
}

export function createPc(options: PcOptions, context: IoModelContext): Pc {
  const devices = new Map<string, Device>()
  const interruptController = new PcInterruptController(context.child('interrupts'), {
    vcpuCount: context.vcpuCount,
    ioApicAddress: Place.ioApic,
    ioApicMessages: context.messageInterrupts,
  })
  const line = (gsi: number): InterruptLine => interruptController.line(gsi)!
  const add = <D extends Device>(name: string, create: (context: DeviceContext) => D): D => {
    const device = create(context.child(name))
    devices.set(name, device)
    return device
  }

  const timerLine = new GatedLine(line(Gsi.timer))
  const rtcLine = new GatedLine(line(Gsi.rtc))
  const pit = add('pit', (child) => new Pit8254(child, timerLine))
  add('systemControl', (child) => new SystemControl(child, pit))
  add('rtc', (child) => new CmosRtc(child, rtcLine, context))
  const coprocessorError = add('coprocessorError', (child) => new CoprocessorError(child, line(Gsi.coprocessor)))
  if (options.hpet) {
    const legacy = [line(Gsi.timer), line(Gsi.rtc)] as const
    add('hpet', (child) => new Hpet(child, Place.hpet, { line, replaced: [timerLine, rtcLine], legacy }))
  }
  const acpi = add('acpi', (child) => new AcpiPm(child, Place.acpiBlock, line(Gsi.sci)))
  const reset = new ResetControl(context.power)
  const pciBus = add(
    'pci',
    (child) => new PciHost(child, { interrupts: interruptController, reset, acpi: acpi.region }),
  )
  add('dma', (child) => new Dma8237(child))
  const fwCfg = add('fwCfg', (child) => new FwCfg(child))
  fillFirmwareConfiguration(fwCfg, options, context)
  if (options.keyboard) add('keyboard', (child) => new I8042(child, line(Gsi.keyboard)))
  if (options.vga) add('vga', (child) => new VgaText(child))
  if (options.serial) {
    add('uart0', (child) => new Uart16550(child, SERIAL_PORTS[0], line(Gsi.serial[0]), context.console))
  }
  if (options.debugExit) new DebugExit(context, Place.debugExit)
  addDebugConsoles(options, context)

  return {
    interruptController,
    pciBus,
    devices,
    firmwareConfiguration: fwCfg,
    offers: new Map<Token<unknown>, () => unknown>([
      [FirmwareConfiguration, () => fwCfg],
      [NumericErrors, () => coprocessorError],
      [VcpuVectors, () => interruptController],
      [PciUnplug, () => pciBus],
    ]),
    describe: (): PlatformDescription => ({
      ...PC_PLATFORM,
      acpi: acpi.describe(),
      pci: pciBus.describe(),
      i8042: options.keyboard,
      vga: options.vga,
      ...(options.hpet ? { hpet: { address: gpa(Place.hpet) } } : {}),
      ...(options.serial ? { serial: [{ port: SERIAL_PORTS[0], gsi: Gsi.serial[0] }] } : {}),
    }),
  }
}

function fillFirmwareConfiguration(fwCfg: FirmwareConfiguration, options: PcOptions, context: IoModelContext): void {
  const { memoryMap, vcpuCount } = context
  const { serialConsole, bootMenu, bootOrder } = options.firmware
  const vcpus = Uint8Array.of(vcpuCount & 0xff, vcpuCount >> 8)
  fwCfg.addItem(FwCfgKey.cpus, vcpus)
  fwCfg.addItem(FwCfgKey.maxCpus, vcpus)
  const ram = memoryMap.regions.reduce((sum, { kind, length }) => sum + (kind === 'ram' ? length : 0), 0)
  fwCfg.addItem(FwCfgKey.ramSize, littleEndian(ram))
  fwCfg.addItem(FwCfgKey.irq0Override, Uint8Array.of(1))
  if (bootMenu) fwCfg.addItem(FwCfgKey.bootMenu, Uint8Array.of(1, 0))
  fwCfg.addFile('etc/e820', e820File(memoryMap.regions))
  if (serialConsole && options.serial) fwCfg.addFile('etc/sercon-port', littleEndian(SERIAL_PORTS[0]))
  if (bootOrder.length) fwCfg.addFile('bootorder', new TextEncoder().encode(bootOrder.join('\n') + '\0'))
}

function littleEndian(value: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true)
  return bytes
}

function addDebugConsoles({ debugConsole }: PcOptions, context: IoModelContext): void {
  if (debugConsole === 'off') return
  const byte = new Uint8Array(1)
  const write = (value: number): void => {
    byte[0] = value
    context.console.write(byte)
  }
  for (const port of [0xe9, 0x402]) new DebugConsole(context, port, debugConsole === 'console' ? write : undefined)
}
