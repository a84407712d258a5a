import { describe, expect, it } from 'vitest'
import { createBzImage, createElf64, createMachine, errorOf, MEBIBYTE, memoryAt } from './images.test.support.ts'
import { createLinux } from './linux.ts'

const linux = createLinux()

describe('a bzImage by its 64-bit entry', () => {
  const machine = createMachine(256)
  const initrd = new Uint8Array(10_000).fill(7)
  const { registers, placed } = linux.load({ kernel: createBzImage().bytes, initrd, cmdline: 'console=ttyS0' }, machine)
  const zeroPage = memoryAt(machine, registers.rsi!, 4096)

  it('is at its preferred address and entered 0x200 bytes behind', () => {
    expect(registers.rip).toBe(0x1000200n)
    expect(memoryAt(machine, 0x1000000, 4).getUint32(0, true)).toBe(0x65646f63)
    expect(placed.find(({ what }) => what === 'kernel')).toEqual({ what: 'kernel', start: 0x1000000, length: 0x200000 })
  })

  it('finds long mode on an identity map', () => {
    expect(registers).toMatchObject({ cr0: 0x80000031n, cr4: 0x20n, efer: 0x500n, rflags: 2n, rbx: 0n })
    expect(registers.cs).toMatchObject({ selector: 0x10, attributes: 0xa09b })
    expect(registers.ds).toMatchObject({ selector: 0x18, attributes: 0xc093 })
    const pointer = memoryAt(machine, registers.cr3!, 8).getBigUint64(0, true)
    const directory = memoryAt(machine, pointer & ~0xfffn, 32).getBigUint64(24, true)
    expect(memoryAt(machine, directory & ~0xfffn, 4096).getBigUint64(511 * 8, true)).toBe(0xffe00083n)
    expect(memoryAt(machine, registers.gdtr!.base + 0x10n, 8).getBigUint64(0, true)).toBe(0x00af9b000000ffffn)
  })

  it('finds its parameters', () => {
    const cmdline = memoryAt(machine, zeroPage.getUint32(0x228, true), 14)
    expect(new TextDecoder().decode(cmdline)).toBe('console=ttyS0\0')
    const start = zeroPage.getUint32(0x218, true)
    expect(start % 4096).toBe(0)
    expect(start + initrd.length).toBeLessThanOrEqual(256 * MEBIBYTE)
    expect(zeroPage.getUint32(0x21c, true)).toBe(initrd.length)
    expect(memoryAt(machine, start, 1).getUint8(0)).toBe(7)
    expect(zeroPage.getUint8(0x210)).toBe(0xff)
    expect(zeroPage.getBigUint64(0x70, true)).toBe(0xe0000n)
    // KiB above 1 MiB: as far as 16 bits go, and all.
    expect([zeroPage.getUint16(2, true), zeroPage.getUint32(0x1e0, true)]).toEqual([0xffff, 255 * 1024])
  })

  it('finds RAM, firmware and ECAM in its memory map', () => {
    const map = Array.from({ length: zeroPage.getUint8(0x1e8) }, (_, index) => [
      Number(zeroPage.getBigUint64(0x2d0 + index * 20, true)),
      Number(zeroPage.getBigUint64(0x2d8 + index * 20, true)),
      zeroPage.getUint32(0x2e0 + index * 20, true),
    ])
    expect(map).toEqual([
      [0, 0x9fc00, 1],
      [0x9fc00, 0x400, 2],
      [0xe0000, 0x20000, 2],
      [MEBIBYTE, 255 * MEBIBYTE, 1],
      [0xe0000000, 0x10000000, 2],
    ])
  })
})

it('takes the 32-bit entry where asked, or where there is no other', () => {
  const old = createBzImage().u16(0x236, 0).bytes
  for (const { protocol, kernel } of [
    { protocol: createLinux({ entry: '32-bit' }), kernel: createBzImage().bytes },
    { protocol: linux, kernel: old },
  ]) {
    const { registers } = protocol.load({ kernel }, createMachine())
    expect(registers).toMatchObject({ rip: 0x1000000n, cr0: 0x11n, efer: 0n })
    expect(registers.cs!.attributes).toBe(0xc09b)
  }
  expect(errorOf(() => createLinux({ entry: '64-bit' }).load({ kernel: old }, createMachine()))!.message).toContain(
    'xloadflags',
  )
})

it('goes low where there is no room at the preferred address, and keeps the initrd below its limit', () => {
  const machine = createMachine(12)
  const kernel = createBzImage().u32(0x22c, 8 * MEBIBYTE - 1).bytes
  const { registers, placed } = linux.load({ kernel, initrd: new Uint8Array(MEBIBYTE) }, machine)
  expect(registers.rip).toBe(0x200200n)
  expect(placed.find(({ what }) => what === 'initrd')).toMatchObject({ start: 7 * MEBIBYTE })
})

it('starts a vmlinux at its physical entry', () => {
  const { registers } = linux.load({ kernel: createElf64().bytes }, createMachine())
  expect(registers.rip).toBe(0x1000000n)
  expect(registers.efer).toBe(0x500n)
})

it('hands over the ACPI tables even where 0xE0000 is no memory', () => {
  const machine = createMachine(64)
  const { regions } = machine.guestMemory
  const holed = { ...machine, guestMemory: { ...machine.guestMemory, regions, writeRom: () => false } }
  const { registers } = linux.load({ kernel: createBzImage().bytes }, holed)
  const rsdp = memoryAt(holed, registers.rsi!, 4096).getBigUint64(0x70, true)
  expect(rsdp).toBeLessThan(0xa0000n)
  expect(memoryAt(holed, rsdp, 8).getBigUint64(0, true)).toBe(0x2052545020445352n)
})

describe('bad kernels', () => {
  it.each([
    { name: 'nothing', kernel: new Uint8Array(0), says: 'boot_flag', code: 'boot.image' },
    {
      name: 'text',
      kernel: new TextEncoder().encode('#!/bin/sh\n'.repeat(100)),
      says: 'boot_flag is 0x',
      code: 'boot.image',
    },
    {
      name: 'no HdrS',
      kernel: createBzImage().u32(0x202, 0).bytes,
      says: 'setup header magic is 0x0',
      code: 'boot.image',
    },
    { name: 'a zImage', kernel: createBzImage().u8(0x211, 0).bytes, says: 'loadflags', code: 'boot.image' },
    {
      name: 'an ancient protocol',
      kernel: createBzImage().u16(0x206, 0x1ff).bytes,
      says: 'version is 0x1ff',
      code: 'boot.image',
    },
    {
      name: 'a loader that is real-mode code alone (iPXE)',
      kernel: createBzImage().u32(0x214, 0).bytes,
      says: 'entry is 16-bit only',
      code: 'boot.image',
    },
    {
      name: 'a loader that states no protected-mode code (MEMDISK)',
      kernel: createBzImage().u32(0x1f4, 0).bytes,
      says: 'entry is 16-bit only',
      code: 'boot.image',
    },
    {
      name: 'truncated',
      kernel: createBzImage().bytes.subarray(0, 0x8000),
      says: 'syssize is 65536',
      code: 'boot.image',
    },
    {
      name: 'truncated in setup',
      kernel: createBzImage().bytes.subarray(0, 0x300),
      says: 'protected-mode kernel',
      code: 'boot.image',
    },
    {
      name: 'odd alignment',
      kernel: createBzImage().u32(0x230, 12345).bytes,
      says: 'kernel_alignment',
      code: 'boot.image',
    },
    {
      name: 'absurd init_size',
      kernel: createBzImage().u32(0x260, 0xfffffff0).bytes,
      says: 'kernel needs 4096 MiB',
      code: 'boot.memory',
    },
    {
      name: 'absurd pref_address',
      kernel: createBzImage().u64(0x258, 2n ** 60n).bytes,
      says: 'pref_address',
      code: 'boot.image',
    },
    { name: 'ELF32', kernel: createElf64().u8(4, 1).bytes, says: 'e_phentsize', code: 'boot.image' },
    {
      name: 'ELF for another machine',
      kernel: createElf64().u16(18, 183).bytes,
      says: 'e_machine is 183',
      code: 'boot.image',
    },
    { name: 'a relocatable ELF', kernel: createElf64().u16(16, 1).bytes, says: 'e_type is 1', code: 'boot.image' },
    { name: 'many segments', kernel: createElf64().u16(56, 60000).bytes, says: 'e_phnum', code: 'boot.image' },
    {
      name: 'no segments',
      kernel: createElf64().u32(64, 0).bytes,
      says: 'count of loadable segments',
      code: 'boot.image',
    },
    {
      name: 'segment beyond the file',
      kernel: createElf64().u64(72, 0x10000).bytes,
      says: 'data of segment 0',
      code: 'boot.image',
    },
    { name: 'segment beyond memory', kernel: createElf64().u64(88, 2 ** 40).bytes, says: 'entry', code: 'boot.memory' },
    {
      name: 'segment of absurd size',
      kernel: createElf64().u64(104, 2n ** 63n).bytes,
      says: 'p_memsz',
      code: 'boot.image',
    },
    {
      name: 'file size above memory size',
      kernel: createElf64().u64(104, 1).bytes,
      says: 'p_memsz of segment 0 is 1',
      code: 'boot.image',
    },
    { name: 'entry nowhere', kernel: createElf64().u64(24, 0x42).bytes, says: 'e_entry is 0x42', code: 'boot.image' },
  ])('$name', ({ kernel, says, code }) => {
    const error = errorOf(() => linux.load({ kernel }, createMachine()))
    expect(error).toMatchObject({ code })
    if (code === 'boot.image') expect(error!.message).toContain(says)
    expect(error!.remedy).toBeTruthy()
  })

  it.each([
    { name: 'no kernel', image: {}, machine: createMachine(), says: 'kernel: file' },
    {
      name: 'no memory',
      image: { kernel: createBzImage().bytes },
      machine: createMachine(0),
      says: 'a guest needs memory',
    },
    {
      name: 'little memory',
      image: { kernel: createBzImage().bytes },
      machine: createMachine(2),
      says: 'kernel needs 2 MiB',
    },
    {
      name: 'an initrd that does not fit',
      image: { kernel: createBzImage().bytes, initrd: new Uint8Array(20 * MEBIBYTE) },
      machine: createMachine(24),
      says: 'initrd needs 20 MiB',
    },
    {
      name: 'a long command line',
      image: { kernel: createBzImage().bytes, cmdline: 'x'.repeat(2048) },
      machine: createMachine(),
      says: 'command line is 2048 bytes long',
    },
  ])('$name', ({ image, machine, says }) => {
    expect(errorOf(() => linux.load(image, machine))!.message).toContain(says)
  })
})
