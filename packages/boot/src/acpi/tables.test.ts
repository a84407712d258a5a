import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FirmwareConfiguration, gpa } from '@nonroot/contracts'
import type { BootMachine, FirmwareItem } from '@nonroot/contracts'
import { createFirmware } from '../firmware.ts'
import { createMachine, PLATFORM } from '../images.test.support.ts'
import { configurationBytes, eisaId, integer, nameString, packageOf, scope } from './aml.ts'
import { acpiFirmwareFiles } from './firmware-files.ts'
import { busWindow, ioWindow } from './resources.ts'
import { acpiTables } from './tables.ts'

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const sum = (bytes: Uint8Array) => bytes.reduce((total, byte) => (total + byte) & 0xff, 0)

describe('AML', () => {
  it.each([
    { what: 'a root name', bytes: nameString('\\_SB'), is: [0x5c, 0x5f, 0x53, 0x42, 0x5f] },
    {
      what: 'two segments',
      bytes: nameString('\\_SB.PCI0'),
      is: [0x5c, 0x2e, 0x5f, 0x53, 0x42, 0x5f, 0x50, 0x43, 0x49, 0x30],
    },
    { what: 'zero', bytes: integer(0), is: [0] },
    { what: 'a byte', bytes: integer(0x42), is: [0x0a, 0x42] },
    { what: 'a word', bytes: integer(0x1234), is: [0x0b, 0x34, 0x12] },
    { what: 'one', bytes: integer(1), is: [1] },
    { what: 'two', bytes: integer(2), is: [0x0a, 2] },
    { what: 'the last byte', bytes: integer(0xff), is: [0x0a, 0xff] },
    { what: 'the first word', bytes: integer(0x100), is: [0x0b, 0, 1] },
    { what: 'the last word', bytes: integer(0xffff), is: [0x0b, 0xff, 0xff] },
    { what: 'the first doubleword', bytes: integer(0x10000), is: [0x0c, 0, 0, 1, 0] },
    { what: 'the last doubleword', bytes: integer(0xffff_ffff), is: [0x0c, 0xff, 0xff, 0xff, 0xff] },
    {
      what: 'bytes of a configuration space, some of them without a name',
      bytes: configurationBytes('PRQ', 0x60, ['AAAA', undefined, 'BBBB']),
      is: [0x5b, 0x80, 0x50, 0x52, 0x51, 0x5f, 2, 0x0a, 0x60, 0x0a, 3, 0x5b, 0x81, 0x12, 0x50, 0x52, 0x51, 0x5f, 1, 0x41, 0x41, 0x41, 0x41, 8, 0, 8, 0x42, 0x42, 0x42, 0x42, 8],
    },
    // QWord, DWord and Word address space descriptors: their lengths, and the five fields. (ACPI, "Address Space Resource Descriptors")
    { what: 'a window of buses', bytes: busWindow(1, 0x7f), is: [0x88, 13, 0, 2, 0x0c, 0, 0, 0, 1, 0, 0x7f, 0, 0, 0, 0x7f, 0] },
    { what: 'a window of ports', bytes: ioWindow(0xc00, 0x100), is: [0x88, 13, 0, 1, 0x0c, 3, 0, 0, 0, 0x0c, 0xff, 0x0c, 0, 0, 0, 1] },
    { what: 'a quadword', bytes: integer(0x100000000), is: [0x0e, 0, 0, 0, 0, 1, 0, 0, 0] },
    { what: 'PNP0A08', bytes: eisaId('PNP0A08'), is: [0x0c, 0x41, 0xd0, 0x0a, 0x08] },
    { what: 'a short package', bytes: packageOf(integer(1)), is: [0x12, 3, 1, 1] },
  ])('$what', ({ bytes, is }) => expect(bytes).toEqual(is))

  it('lengths of two bytes count themselves', () => {
    const long = scope(
      '\\',
      Array.from({ length: 100 }, () => 0xa3),
    )
    expect(long.slice(0, 3)).toEqual([0x10, 0x40 | (104 & 15), 104 >> 4])
  })
})

describe('tables', () => {
  const { rsdp, tables, bySignature } = acpiTables(PLATFORM, 2, 0xe0040)

  it('name each other and add up to zero', () => {
    expect(sum(rsdp.subarray(0, 20))).toBe(0)
    expect(sum(rsdp)).toBe(0)
    const xsdtAt = Number(view(rsdp).getBigUint64(24, true))
    expect(xsdtAt).toBe(bySignature.get('XSDT')!.address)
    for (const [signature, { address, bytes }] of bySignature) {
      expect(tables.subarray(address - 0xe0040, address - 0xe0040 + bytes.length)).toEqual(bytes)
      expect(view(bytes).getUint32(4, true)).toBe(bytes.length)
      if (signature !== 'FACS') expect(sum(bytes), signature).toBe(0)
    }
    const xsdt = bySignature.get('XSDT')!.bytes
    const listed = Array.from({ length: (xsdt.length - 36) / 8 }, (_, i) =>
      Number(view(xsdt).getBigUint64(36 + i * 8, true)),
    )
    expect(view(rsdp).getUint32(16, true)).toBe(bySignature.get('RSDT')!.address)
    const rsdt = bySignature.get('RSDT')!.bytes
    expect(Array.from({ length: (rsdt.length - 36) / 4 }, (_, i) => view(rsdt).getUint32(36 + i * 4, true))).toEqual(
      listed,
    )
    expect(listed).toEqual(['FACP', 'APIC', 'MCFG', 'HPET'].map((signature) => bySignature.get(signature)!.address))
    expect(view(bySignature.get('FACP')!.bytes).getUint32(40, true)).toBe(bySignature.get('DSDT')!.address)
    expect(bySignature.get('FACS')!.address % 64).toBe(0)
  })

  it.each([
    { what: 'an SMI command', smiCommand: 0xb2, is: [0xb2, 2, 3] },
    { what: 'none: it is in ACPI mode already', smiCommand: undefined, is: [0, 0, 0] },
  ])('FADT with $what', ({ smiCommand, is }) => {
    const platform = { ...PLATFORM, acpi: { ...PLATFORM.acpi!, smiCommand } } as typeof PLATFORM
    const fadt = acpiTables(platform, 1, 0xe0040).bySignature.get('FACP')!.bytes
    expect([view(fadt).getUint32(48, true), fadt[52], fadt[53]]).toEqual(is)
    expect(view(fadt).getUint16(46, true)).toBe(PLATFORM.acpi!.sciGsi)
  })

  it('DSDT names a clock where there is one', () => {
    const clock = (platform: typeof PLATFORM) => Buffer.from(acpiTables(platform, 1, 0xe0040).bySignature.get('DSDT')!.bytes).includes(Buffer.from(eisaId('PNP0B00').slice(1)))
    expect([clock({ ...PLATFORM, rtc: { port: 0x70, gsi: 8 } } as typeof PLATFORM), clock({ ...PLATFORM, rtc: undefined } as unknown as typeof PLATFORM)]).toEqual([true, false])
  })

  it('leave out what the machine has not', () => {
    expect([...acpiTables({}, 1, 0xe0040).bySignature.keys()]).toEqual(['DSDT', 'FACP', 'RSDT', 'XSDT'])
    expect(view(acpiTables({}, 1, 0xe0040).bySignature.get('FACP')!.bytes).getUint32(112, true) & 0x100000).toBe(
      0x100000,
    )
  })

  it.each([
    ['DMA only', false, 0xf0f8, [0, 16, []]],
    ['interrupts, with the I/O APIC as bus f0, device 1f', true, 0xf0f8, [1, 24, [3, 8, 0, 0, 0, 0xf0, 0x1f, 0]]],
    ['interrupts, of an I/O APIC that no IOMMU knows', true, undefined, [0, 16, []]],
  ])('DMAR: %s', (_, remapsInterrupts, requesterId, [flags, length, scope]) => {
    const ioApics = PLATFORM.ioApics!.map((each) => (requesterId === undefined ? each : { ...each, requesterId }))
    const iommu = { address: 0xfed9_0000, remapsInterrupts }
    const { bytes } = acpiTables({ ...PLATFORM, ioApics, iommu }, 1, 0xe0040).bySignature.get('DMAR')!
    expect([bytes[37], view(bytes).getUint16(50, true), [...bytes.subarray(64)]]).toEqual([flags, length, scope])
    // A remapping unit for all of PCI.
    expect([view(bytes).getUint16(48, true), bytes[52], view(bytes).getUint32(56, true)]).toEqual([0, 1, 0xfed9_0000])
  })

  it('name processors from ID 255 on by x2APIC entries, and all lie behind one another', () => {
    const { bytes } = acpiTables(PLATFORM, 257, 0xe0040).bySignature.get('APIC')!
    const processors: [type: number, id: number][] = []
    let at = 44
    for (; at < bytes.length; at += bytes[at + 1]!) {
      if (bytes[at] === 0) processors.push([0, bytes[at + 3]!])
      if (bytes[at] === 9) processors.push([9, view(bytes).getUint32(at + 4, true)])
    }
    expect(at).toBe(bytes.length)
    expect(processors).toEqual(Array.from({ length: 257 }, (_, id) => [id < 255 ? 0 : 9, id]))
  })
  it('fit where they are put with 255 processors', () => {
    expect(acpiTables(PLATFORM, 255, 0xe0040).tables.length).toBeLessThan(0x1ffc0)
  })

  const hasIasl = spawnSync('iasl', ['-v']).status === 0
  it.skipIf(!hasIasl)('are disassembled and compiled again by iasl without a word', () => {
    const folder = mkdtempSync(join(tmpdir(), 'acpi-'))
    try {
      for (const [signature, { bytes }] of bySignature) {
        writeFileSync(join(folder, `${signature}.dat`), bytes)
        const { stderr, stdout } = spawnSync('iasl', ['-d', `${signature}.dat`], { cwd: folder, encoding: 'latin1' })
        expect(stdout + stderr, signature).not.toMatch(/\b(error|warning|invalid|incorrect|could not)\b/i)
      }
      const said = execFileSync('iasl', ['-tc', 'DSDT.dsl'], { cwd: folder, encoding: 'latin1' })
      expect(said).toContain('0 Errors, 0 Warnings')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

/** Does as a script says. EDK II puts a checksum in place of what is there, SeaBIOS takes the sum off it. */
function link(files: ReadonlyMap<string, Uint8Array>, addresses: ReadonlyMap<string, number>, how: 'put' | 'take off') {
  const loaded = new Map([...files].map(([name, bytes]) => [name, bytes.slice()]))
  const script = view(files.get('etc/table-loader')!)
  const name = (at: number) =>
    new TextDecoder().decode(new Uint8Array(script.buffer, script.byteOffset + at, 56)).replace(/\0.*$/s, '')
  for (let at = 0; at < script.byteLength; at += 128) {
    const command = script.getUint32(at, true)
    const bytes = loaded.get(name(at + 4))!
    if (command === 2) {
      const offset = script.getUint32(at + 116, true)
      const address = addresses.get(name(at + 60))!
      const size = script.getUint8(at + 120)
      if (size === 4) view(bytes).setUint32(offset, view(bytes).getUint32(offset, true) + address, true)
      else view(bytes).setBigUint64(offset, view(bytes).getBigUint64(offset, true) + BigInt(address), true)
    } else if (command === 3) {
      const start = script.getUint32(at + 64, true)
      const where = script.getUint32(at + 60, true)
      const total = sum(bytes.subarray(start, start + script.getUint32(at + 68, true)))
      bytes[where] = how === 'put' ? -total : bytes[where]! - total
    }
  }
  return loaded
}

describe('as firmware files', () => {
  const addresses = new Map([
    ['etc/acpi/tables', 0x7fe0000],
    ['etc/acpi/rsdp', 0xf5000],
  ])
  const { ecam: _, ...pci } = PLATFORM.pci!
  const moved = { address: gpa(0xb0000000), startBus: 0, endBus: 255 }

  it.each(['put', 'take off'] as const)('linked by their script at any address they are whole: %s', (how) => {
    const loaded = link(acpiFirmwareFiles(PLATFORM, 2), addresses, how)
    const { rsdp, tables } = acpiTables(PLATFORM, 2, 0x7fe0000)
    expect(loaded.get('etc/acpi/tables')).toEqual(tables)
    expect(loaded.get('etc/acpi/rsdp')).toEqual(rsdp)
  })

  it.each([
    { what: 'where firmware has moved ECAM', ecam: { ecam: moved } },
    { what: 'without ECAM that firmware has switched off', ecam: {} },
  ])('say how the machine is when they are read, in as many bytes: $what', ({ ecam }) => {
    const offered = new Map<string, FirmwareItem>()
    const read = () => new Map([...offered].map(([name, item]) => [name, item instanceof Uint8Array ? item : item()]))
    let platform = PLATFORM
    const machine: BootMachine = {
      ...createMachine(256, PLATFORM, [{ start: gpa(0xffff0000), length: 0x10000, kind: 'rom' }]),
      get platform() {
        return platform
      },
      capability: (of) =>
        of === (FirmwareConfiguration as typeof of)
          ? ({ addFile: (name: string, item: FirmwareItem) => offered.set(name, item) } as never)
          : undefined,
    }
    createFirmware().load({ firmware: new Uint8Array(0x10000).fill(0x90) }, machine)
    const before = read()
    platform = { ...PLATFORM, pci: { ...pci, ...ecam } }
    const after = read()
    expect([...after].map(([name, { length }]) => [name, length])).toEqual(
      [...before].map(([name, { length }]) => [name, length]),
    )
    const { tables } = acpiTables(platform, 2, 0x7fe0000)
    expect(link(after, addresses, 'take off').get('etc/acpi/tables')!.subarray(0, tables.length)).toEqual(tables)
  })
})
