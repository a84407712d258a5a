/** The DSDT's terms: devices that no bus can enumerate, generated from the platform's description. */
import type { PlatformDescription } from '@nonroot/contracts'
import {
  type Aml,
  and,
  argument,
  configurationBytes,
  device,
  doubleWordField,
  eisaId,
  integer,
  method,
  named,
  nameString,
  or,
  packageOf,
  returned,
  scope,
  store,
  string,
  when,
} from './aml.ts'
import {
  busWindow,
  fixedMemory,
  ioPorts,
  ioWindow,
  isaInterrupt,
  levelInterrupt,
  LEVEL_INTERRUPT_NUMBER,
  memoryWindow,
  resourceTemplate,
} from './resources.ts'

const DEVICES = 32 // slots of a PCI bus
const PINS = 4 // INTA to INTD
const ECAM_BUS = 1 << 20
const CONFIGURATION_PORTS = 0xcf8

type Pci = NonNullable<PlatformDescription['pci']>
type Ecam = NonNullable<Pci['ecam']>
type PicRouting = NonNullable<Pci['picRouting']>

export function dsdtTerms(platform: PlatformDescription): Aml {
  return [
    ...sleepStates(platform.acpi ?? platform.reducedAcpi),
    ...(platform.pci?.picRouting ? interruptModel() : []),
    ...scope(
      '\\_SB',
      ...(platform.pci ? [hostBridge(platform.pci)] : []),
      ...(platform.pci?.ecam ? [motherboard(platform.pci.ecam)] : []),
      ...isaDevices(platform),
      ...virtioDevices(platform),
    ),
  ]
}

/** \_S5: what goes into SLP_TYP of both PM1 control blocks, or of the sleep control register. */
const sleepStates = (acpi: { readonly sleepTypeS5: number } | undefined): Aml =>
  acpi ? named('\\_S5', packageOf(integer(acpi.sleepTypeS5), integer(acpi.sleepTypeS5), integer(0), integer(0))) : []

/** The system says by \_PIC which interrupt controllers it uses: 0 for the 8259 pair, which is how it starts. */
const INTERRUPT_MODEL = '\\PICM'
const interruptModel = (): Aml => [
  ...named(INTERRUPT_MODEL, integer(0)),
  ...method('\\_PIC', 1, store(argument(0), nameString(INTERRUPT_MODEL))),
]

function hostBridge({ ecam, windows, intx, picRouting }: Pci): Aml {
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
    ...(picRouting ? [isaBridge(picRouting)] : []),
    ...(intx.length > 0 ? routing(intx, picRouting) : []),
    // The system may have every feature that it asks for: firmware wants none of them.
    ...(ecam ? [method('_OSC', 4, returned(argument(3)))] : []),
  )
}

/** What each pin of each device is wired to, for the I/O APIC and, where its routing is known, for the 8259 pair. */
function routing(intx: readonly number[], picRouting: PicRouting | undefined): Aml[] {
  // A source of 0 says that the index is a global system interrupt.
  const global = routingTable(intx.length, (index) => [integer(0), integer(intx[index]!)])
  if (!picRouting) return [named('_PRT', global)]
  const links = routingTable(intx.length, (index) => [nameString(`\\_SB.PCI0.ISA.${linkName(index)}`), integer(0)])
  return [
    named('PRTA', global),
    named('PRTP', links),
    method('_PRT', 0, when(nameString(INTERRUPT_MODEL), returned(nameString('PRTA'))), returned(nameString('PRTP'))),
  ]
}

/** Device d's pin p is wired to input (d + p) mod n. */
function routingTable(inputs: number, source: (index: number) => [source: Aml, index: Aml]): Aml {
  const rows: Aml[] = []
  for (let slot = 0; slot < DEVICES; slot++) {
    for (let pin = 0; pin < PINS; pin++) {
      const anyFunction = slot * 0x10000 + 0xffff
      rows.push(packageOf(integer(anyFunction), integer(pin), ...source((slot + pin) % inputs)))
    }
  }
  return packageOf(...rows)
}

const linkLetter = (index: number): string => String.fromCharCode(0x41 + index)
const linkName = (index: number): string => `LNK${linkLetter(index)}`
const registerName = (index: number): string => `PRQ${linkLetter(index)}`

/** The bridge whose registers route PCI pins to the 8259 pair, and a link device for each, by which a system sets them. (ACPI, "PCI Interrupt Link Devices") */
function isaBridge({ device: slot, function: number, registers, irqs }: PicRouting): Aml {
  const first = Math.min(...registers)
  const names = Array.from({ length: Math.max(...registers) - first + 1 }, (_, at) => {
    const index = registers.indexOf(first + at)
    return index < 0 ? undefined : registerName(index)
  })
  return device(
    'ISA',
    named('_ADR', integer(slot * 0x10000 + number)),
    configurationBytes('PIRQ', first, names),
    ...registers.map((_, index) => interruptLink(index, irqs)),
  )
}

function interruptLink(index: number, irqs: readonly number[]): Aml {
  const OFF = 0x80
  const IRQ = 0x0f
  const PRESENT = 0x0b
  const DISABLED = 0x09
  const register = nameString(registerName(index))
  const chosen = nameString('CHSN')
  return device(
    linkName(index),
    named('_HID', eisaId('PNP0C0F')),
    named('_UID', integer(index)),
    named('_PRS', resourceTemplate(levelInterrupt(...irqs))),
    named('CHSN', resourceTemplate(levelInterrupt(0))),
    doubleWordField(chosen, LEVEL_INTERRUPT_NUMBER, 'CIRQ'),
    method('_STA', 0, when(and(register, integer(OFF)), returned(integer(DISABLED))), returned(integer(PRESENT))),
    method('_DIS', 0, store(or(register, integer(OFF)), register)),
    method('_CRS', 0, store(and(register, integer(IRQ)), nameString('CIRQ')), returned(chosen)),
    method('_SRS', 1, doubleWordField(argument(0), LEVEL_INTERRUPT_NUMBER, 'IRQ'), store(nameString('IRQ'), register)),
  )
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
