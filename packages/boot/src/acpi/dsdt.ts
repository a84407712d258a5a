/** The DSDT's terms: devices that no bus can enumerate, made from what the platform says it has. */
import type { PlatformDescription } from '@nonroot/contracts'
import {
  type Aml,
  argument,
  device,
  eisaId,
  integer,
  method,
  named,
  packageOf,
  returned,
  scope,
  string,
} from './aml.ts'
import {
  busWindow,
  fixedMemory,
  ioPorts,
  ioWindow,
  isaInterrupt,
  levelInterrupt,
  memoryWindow,
  resourceTemplate,
} from './resources.ts'

const DEVICES = 32 // slots of a PCI bus
const PINS = 4 // INTA to INTD
const ECAM_BUS = 1 << 20
const CONFIGURATION_PORTS = 0xcf8

type Ecam = NonNullable<NonNullable<PlatformDescription['pci']>['ecam']>

export function dsdtTerms(platform: PlatformDescription): Aml {
  return [
    ...(platform.acpi ? sleepStates(platform.acpi) : []),
    ...scope(
      '\\_SB',
      ...(platform.pci ? [hostBridge(platform.pci)] : []),
      ...(platform.pci?.ecam ? [motherboard(platform.pci.ecam)] : []),
      ...isaDevices(platform),
      ...virtioDevices(platform),
    ),
  ]
}

/** \_S5: what goes into SLP_TYP of both PM1 control blocks. */
const sleepStates = ({ sleepTypeS5 }: NonNullable<PlatformDescription['acpi']>): Aml =>
  named('\\_S5', packageOf(integer(sleepTypeS5), integer(sleepTypeS5), integer(0), integer(0)))

function hostBridge({ ecam, windows, intx }: NonNullable<PlatformDescription['pci']>): Aml {
  const [first, last] = ecam ? [ecam.startBus, ecam.endBus] : [0, 0xff]
  const resources = windows.map(({ kind, base, length }) =>
    kind === 'io' ? ioWindow(base, length) : memoryWindow(base, length),
  )
  // Configuration mechanism 1 is the bridge's own; the ports below it go to the ISA side, where a system must find ACPI's block.
  const own = ioPorts(CONFIGURATION_PORTS, 8)
  const isa = ioWindow(0, CONFIGURATION_PORTS)
  return device(
    'PCI0',
    named('_HID', eisaId(ecam ? 'PNP0A08' : 'PNP0A03')),
    ...(ecam ? [named('_CID', eisaId('PNP0A03'))] : []),
    named('_UID', integer(0)),
    named('_SEG', integer(0)),
    named('_BBN', integer(first)),
    named('_CRS', resourceTemplate(busWindow(first, last), own, isa, ...resources)),
    ...(intx.length > 0 ? [named('_PRT', routing(intx))] : []),
    // The system may have every feature that it asks for: firmware wants none of them.
    ...(ecam ? [method('_OSC', 4, returned(argument(3)))] : []),
  )
}

/** Device d's pin p is wired to intx[(d + p) mod n]; a source of 0 says that the index is a global system interrupt. */
function routing(intx: readonly number[]): Aml {
  const rows: Aml[] = []
  for (let slot = 0; slot < DEVICES; slot++) {
    for (let pin = 0; pin < PINS; pin++) {
      const anyFunction = slot * 0x10000 + 0xffff
      rows.push(packageOf(integer(anyFunction), integer(pin), integer(0), integer(intx[(slot + pin) % intx.length]!)))
    }
  }
  return packageOf(...rows)
}

/**
 * What belongs to no device: ECAM, so that nothing is put over it. The ports of ACPI's fixed hardware are in the FADT and a register of
 * the LPC bridge; said here as well, a system finds them claimed twice.
 */
const motherboard = ({ address, startBus, endBus }: Ecam): Aml =>
  device(
    'MBRD',
    named('_HID', eisaId('PNP0C02')),
    named('_UID', integer(0)),
    named('_CRS', resourceTemplate(fixedMemory(address, (endBus - startBus + 1) * ECAM_BUS))),
  )

function isaDevices({ serial, rtc, i8042, hpet }: PlatformDescription): Aml[] {
  const found: Aml[] = (serial ?? []).map(({ port, gsi }, index) =>
    device(
      `COM${index + 1}`,
      named('_HID', eisaId('PNP0501')),
      named('_UID', integer(index)),
      named('_CRS', resourceTemplate(ioPorts(port, 8), isaInterrupt(gsi))),
    ),
  )
  if (rtc) {
    found.push(
      device(
        'RTC',
        named('_HID', eisaId('PNP0B00')),
        named('_CRS', resourceTemplate(ioPorts(rtc.port, 2), isaInterrupt(rtc.gsi))),
      ),
    )
  }
  if (i8042 === true) {
    const KEYBOARD_IRQ = 1
    const MOUSE_IRQ = 12
    const ports = [ioPorts(0x60, 1), ioPorts(0x64, 1)]
    found.push(
      device(
        'KBD',
        named('_HID', eisaId('PNP0303')),
        named('_CRS', resourceTemplate(...ports, isaInterrupt(KEYBOARD_IRQ))),
      ),
      device('MOU', named('_HID', eisaId('PNP0F13')), named('_CRS', resourceTemplate(isaInterrupt(MOUSE_IRQ)))),
    )
  }
  if (hpet) {
    const REGISTERS = 0x400
    found.push(
      device(
        'HPET',
        named('_HID', eisaId('PNP0103')),
        named('_CRS', resourceTemplate(fixedMemory(hpet.address, REGISTERS))),
      ),
    )
  }
  return found
}

/** virtio-mmio transports, by the identifier that Linux knows. */
const virtioDevices = ({ virtioMmio }: PlatformDescription): Aml[] =>
  (virtioMmio ?? []).map(({ address, length, gsi }, index) =>
    device(
      `V${index.toString(16).toUpperCase().padStart(3, '0')}`,
      named('_HID', string('LNRO0005')),
      named('_UID', integer(index)),
      named('_CCA', integer(1)),
      named('_CRS', resourceTemplate(fixedMemory(address, length), levelInterrupt(gsi))),
    ),
  )
