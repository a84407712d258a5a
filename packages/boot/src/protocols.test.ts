import { readFileSync } from 'node:fs'
import { gpa } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { createFirmware, firmwareRom } from './firmware.ts'
import { createElf64, createMachine, errorOf, MEBIBYTE, memoryAt } from './images.test.support.ts'
import { createMultiboot } from './multiboot.ts'
import plugin from './plugin.ts'
import { createPvh } from './pvh.ts'
import { Structure } from './structure.ts'

const guestElf = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../../../guests/${name}/${name}.elf`, import.meta.url)))

const text = (view: DataView) => new TextDecoder().decode(view).replace(/\0.*$/s, '')

describe('PVH', () => {
  it('gives start info with memory map, modules, command line and RSDP', () => {
    const machine = createMachine(64)
    const image = { kernel: createElf64().bytes, initrd: new Uint8Array(5000).fill(9), cmdline: 'a=b' }
    const { registers } = createPvh().load(image, machine)
    expect(registers).toMatchObject({ rip: 0x1000100n, cr0: 0x11n, cr4: 0n, efer: 0n, rflags: 2n })
    expect(registers.tr).toMatchObject({ attributes: 0x8b, limit: 0x67 })
    const info = memoryAt(machine, registers.rbx!, 56)
    expect(info.getUint32(0, true)).toBe(0x336ec578)
    expect(info.getUint32(4, true)).toBe(1)
    expect(info.getUint32(12, true)).toBe(1)
    const module = memoryAt(machine, info.getBigUint64(16, true), 32)
    expect(module.getBigUint64(8, true)).toBe(5000n)
    expect(memoryAt(machine, module.getBigUint64(0, true), 1).getUint8(0)).toBe(9)
    expect(text(memoryAt(machine, info.getBigUint64(24, true), 4))).toBe('a=b')
    expect(text(memoryAt(machine, info.getBigUint64(32, true), 8))).toBe('RSD PTR ')
    expect(info.getUint32(48, true)).toBe(5)
    const map = memoryAt(machine, info.getBigUint64(40, true), 120)
    expect(map.getBigUint64(72, true)).toBe(BigInt(MEBIBYTE))
    expect(map.getUint32(88, true)).toBe(1)
  })

  it('leaves out memory that the platform uses: nothing is placed there, and the map says reserved', () => {
    const machine = createMachine(64)
    const reserved = { address: gpa(64 * MEBIBYTE - 8192), length: 8192 }
    const platform = { ...machine.platform, reservedMemory: [reserved] }
    const { registers, placed } = createPvh().load(
      { kernel: createElf64().bytes, initrd: new Uint8Array(5000) },
      { ...machine, platform },
    )
    expect(placed.find(({ what }) => what === 'initrd')).toMatchObject({ start: 64 * MEBIBYTE - 8192 - 8192 })
    const info = memoryAt(machine, registers.rbx!, 56)
    const count = info.getUint32(48, true)
    const map = memoryAt(machine, info.getBigUint64(40, true), count * 24)
    const entries = Array.from({ length: count }, (_, n) => [
      Number(map.getBigUint64(n * 24, true)),
      Number(map.getBigUint64(n * 24 + 8, true)),
      map.getUint32(n * 24 + 16, true),
    ])
    expect(entries).toContainEqual([64 * MEBIBYTE - 8192, 8192, 2])
    expect(entries).toContainEqual([MEBIBYTE, 63 * MEBIBYTE - 8192, 1])
  })

  it.each([
    { name: 'a bzImage', kernel: new Uint8Array(4096), says: 'format is not ELF' },
    { name: 'no note', kernel: createElf64().u32(0x1808, 17).bytes, says: 'XEN_ELFNOTE_PHYS32_ENTRY is not there' },
    {
      name: 'a note of another name',
      kernel: createElf64().text(0x180c, 'GNU').bytes,
      says: 'XEN_ELFNOTE_PHYS32_ENTRY',
    },
    { name: 'a note cut short', kernel: createElf64().u32(0x1804, 400).bytes, says: 'XEN_ELFNOTE_PHYS32_ENTRY' },
    { name: 'an entry nowhere', kernel: createElf64().u32(0x1810, 0x42).bytes, says: 'is 0x42' },
  ])('refuses $name', ({ kernel, says }) => {
    expect(errorOf(() => createPvh().load({ kernel }, createMachine()))!.message).toContain(says)
  })
})

/** A header with addresses, and code, in a file of 0x200 bytes; loaded at 1 MiB. */
const kludge = () =>
  new Structure(0x200)
    .u32(0x40, 0x1badb002)
    .u32(0x44, 0x10003)
    .u32(0x48, -(0x1badb002 + 0x10003) >>> 0)
    .u32(0x4c, 0x100040)
    .u32(0x50, 0x100000)
    .u32(0x54, 0x100200)
    .u32(0x58, 0x101000)
    .u32(0x5c, 0x100080)

describe('Multiboot', () => {
  it('loads an ELF with modules, command line and memory map', () => {
    const machine = createMachine(64)
    const modules = [
      { content: Uint8Array.of(1, 2, 3), cmdline: 'first one' },
      { content: new Uint8Array(9000), cmdline: '' },
    ]
    const { registers } = createMultiboot().load(
      { kernel: guestElf('hello'), modules, cmdline: 'hello world' },
      machine,
    )
    expect(registers).toMatchObject({ rip: 0x100010n, rax: 0x2badb002n, cr0: 0x11n, rflags: 2n })
    const info = memoryAt(machine, registers.rbx!, 120)
    expect(info.getUint32(0, true)).toBe(0x24d)
    expect([info.getUint32(4, true), info.getUint32(8, true)]).toEqual([639, 63 * 1024])
    expect(text(memoryAt(machine, info.getUint32(16, true), 12))).toBe('hello world')
    expect(info.getUint32(20, true)).toBe(2)
    const list = memoryAt(machine, info.getUint32(24, true), 32)
    const start = list.getUint32(0, true)
    expect(start % 4096).toBe(0)
    expect(list.getUint32(4, true) - start).toBe(3)
    expect(memoryAt(machine, start, 3).getUint8(2)).toBe(3)
    expect(text(memoryAt(machine, list.getUint32(8, true), 10))).toBe('first one')
    const map = memoryAt(machine, info.getUint32(48, true), info.getUint32(44, true))
    expect(map.getUint32(0, true)).toBe(20)
    expect(map.getBigUint64(12, true)).toBe(0x9fc00n)
  })

  it('loads by the addresses in the header', () => {
    const machine = createMachine(64)
    const { registers, placed } = createMultiboot().load({ kernel: kludge().bytes }, machine)
    expect(registers.rip).toBe(0x100080n)
    expect(placed[0]).toEqual({ what: 'kernel', start: MEBIBYTE, length: 0x1000 })
    expect(memoryAt(machine, 0x100040, 4).getUint32(0, true)).toBe(0x1badb002)
  })
  it('loads from its header on where header_addr is load_addr, and refuses one below', () => {
    const machine = createMachine(64)
    expect(createMultiboot().load({ kernel: kludge().u32(0x50, 0x100040).bytes }, machine).placed[0]).toMatchObject({ start: 0x100040 })
    expect(memoryAt(machine, 0x100040, 4).getUint32(0, true)).toBe(0x1badb002)
    expect(errorOf(() => createMultiboot().load({ kernel: kludge().u32(0x50, 0x100044).bytes }, createMachine(64)))?.message).toContain('load_addr')
  })

  it.each([
    { name: 'no header', kernel: new Uint8Array(9000), says: 'multiboot header is not there' },
    { name: 'a wrong checksum', kernel: kludge().u32(0x48, 5).bytes, says: 'multiboot header is not there' },
    {
      name: 'unknown requirements',
      kernel: kludge()
        .u32(0x44, 0x10008)
        .u32(0x48, -(0x1badb002 + 0x10008) >>> 0).bytes,
      says: 'multiboot flags is 0x10008',
    },
    { name: 'load above header', kernel: kludge().u32(0x50, 0x200000).bytes, says: 'load_addr is 0x200000' },
    { name: 'end before start', kernel: kludge().u32(0x54, 0x1000).bytes, says: 'load_end_addr' },
    { name: 'more than the file has', kernel: kludge().u32(0x54, 0x200000).bytes, says: 'load_addr..load_end_addr' },
    { name: 'bss inside the data', kernel: kludge().u32(0x58, 0x100100).bytes, says: 'bss_end_addr' },
    { name: 'entry outside', kernel: kludge().u32(0x5c, 0x42).bytes, says: 'entry_addr is 0x42' },
    {
      name: 'no ELF and no addresses',
      kernel: kludge()
        .u32(0x44, 3)
        .u32(0x48, -(0x1badb002 + 3) >>> 0).bytes,
      says: 'neither ELF',
    },
  ])('refuses $name', ({ kernel, says }) => {
    expect(errorOf(() => createMultiboot().load({ kernel }, createMachine()))!.message).toContain(says)
  })

  it('refuses a kernel that lies over the legacy hole', () => {
    const kernel = kludge()
      .u32(0x4c, 0xa0040)
      .u32(0x50, 0xa0000)
      .u32(0x54, 0xa0200)
      .u32(0x58, 0xa0200)
      .u32(0x5c, 0xa0080)
    expect(errorOf(() => createMultiboot().load({ kernel: kernel.bytes }, createMachine()))).toMatchObject({
      code: 'boot.memory',
    })
  })
})

it('the demo guest boots by Multiboot and by PVH', () => {
  expect(createMultiboot().load({ kernel: guestElf('demo') }, createMachine()).registers.rip).toBe(0x100010n)
  expect(createPvh().load({ kernel: guestElf('demo') }, createMachine()).registers.rip).toBe(0x100010n)
})

describe('firmware', () => {
  const image = new Uint8Array(0x40000).map((_, index) => index >> 12)
  const rom = { ...firmwareRom(image.length), kind: 'rom' as const }

  it('ends at 4 GiB, with its last 128 KiB below 1 MiB', () => {
    const machine = createMachine(16, {}, [{ ...rom, start: gpa(rom.start) }])
    expect(createFirmware().load({ firmware: image }, machine).registers).toEqual({})
    expect(memoryAt(machine, 0xfffffff0, 1).getUint8(0)).toBe(0x3f)
    expect(memoryAt(machine, 0xffff0, 1).getUint8(0)).toBe(0x3f)
    expect(memoryAt(machine, 0xe0000, 1).getUint8(0)).toBe(0x20)
  })

  it.each([
    { name: 'an odd size', firmware: image.subarray(0, 0x10001), says: 'size is 65537' },
    { name: 'nothing', firmware: new Uint8Array(0), says: 'size is 0' },
    { name: 'too much', firmware: new Uint8Array(0x2000000), says: 'size is 33554432' },
    { name: 'an empty reset vector', firmware: new Uint8Array(0x10000), says: 'reset vector is empty' },
    { name: 'a machine without ROM', firmware: image, says: 'firmware needs ROM or RAM at 0xfffc0000' },
  ])('refuses $name', ({ firmware, says }) => {
    expect(errorOf(() => createFirmware().load({ firmware }, createMachine()))!.message).toContain(says)
  })
})

it('the plugin parses options and names files', async () => {
  expect(plugin.strategies!.map(({ name }) => name)).toEqual(['linux', 'pvh', 'xen-pv', 'multiboot', 'firmware'])
  const [linux] = plugin.strategies!
  const parsed = await linux!.options['~standard'].validate({ kernel: 'vmlinuz', cmdline: 'quiet' })
  expect(parsed).toEqual({ value: { kernel: 'vmlinuz', cmdline: 'quiet', entry: 'auto' } })
  expect(
    (linux as unknown as { image: (options: unknown) => unknown }).image({ kernel: 'vmlinuz', entry: 'auto' }),
  ).toEqual({
    kernel: 'vmlinuz',
  })
  expect((await linux!.options['~standard'].validate({ kernel: 'x', initd: 'y' })).issues).toHaveLength(1)
})
