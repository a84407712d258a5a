import { describe, expect, it } from 'vitest'
import { type ModuleInfo, moduleName, readModuleInfo } from './module-info.ts'
import {
  formatModulesAlias,
  formatModulesDep,
  parseModulesBuiltin,
  parseModulesDep,
  parseModulesSoftdep,
  resolveModules,
} from './modules.ts'
import { kernelModule, rejection } from './samples.test.support.ts'

const info = (name: string, depends: string[] = [], softBefore: string[] = []): ModuleInfo => ({
  name,
  depends,
  softBefore,
  aliases: [],
})
const available = new Map(
  [
    info('virtio'),
    info('virtio_ring', ['virtio']),
    info('virtio_pci', ['virtio', 'virtio_ring']),
    info('a', [], ['b']),
    info('b', ['a']),
    info('ext4', ['jbd2'], ['crc32c']),
  ].map((one) => [one.name, one]),
)

it('reads what a module says of itself', () => {
  const elf = kernelModule({
    license: 'GPL',
    depends: 'virtio,virtio-ring',
    name: 'virtio_pci',
    alias: 'pci:v00001AF4d*',
    softdep: 'pre: crc32c aes post: late',
  })
  expect(readModuleInfo(elf, 'virtio_pci.ko')).toEqual({
    name: 'virtio_pci',
    depends: ['virtio', 'virtio_ring'],
    softBefore: ['crc32c', 'aes'],
    aliases: ['pci:v00001AF4d*'],
  })
  expect(moduleName('kernel/drivers/net/virtio-net.ko.xz')).toBe('virtio_net')
})

it.each([
  { name: 'no ELF', elf: new Uint8Array(100) },
  { name: 'a cut file', elf: kernelModule({ name: 'x' }).subarray(0, 150) },
  { name: 'a wild section table', elf: kernelModule({ name: 'x' }).fill(0xff, 0x28, 0x30) },
])('refuses $name', async ({ elf }) => {
  expect((await rejection(Promise.resolve().then(() => readModuleInfo(elf, 'x.ko'))))!.code).toBe('boot.image')
})

describe('resolving', () => {
  it.each([
    { wanted: ['virtio-pci'], order: ['virtio', 'virtio_ring', 'virtio_pci'], missing: [] },
    { wanted: ['a'], order: ['b', 'a'], missing: [] },
    { wanted: ['ext4'], order: ['ext4'], missing: [] },
    { wanted: ['serial', 'nothing'], order: [], missing: ['nothing'] },
  ])('$wanted', ({ wanted, order, missing }) => {
    expect(resolveModules(wanted, available, parseModulesBuiltin('kernel/drivers/tty/serial.ko\n'))).toEqual({
      order,
      missing,
    })
  })
})

it('writes and reads what modprobe reads', () => {
  const modules = [...available.values()]
    .slice(0, 3)
    .map((one) => ({ ...one, aliases: [`pci:${one.name}*`], path: `kernel/${one.name}.ko` }))
  const dep = formatModulesDep(modules)
  expect(dep).toBe(
    'kernel/virtio.ko:\nkernel/virtio_pci.ko: kernel/virtio_ring.ko kernel/virtio.ko\nkernel/virtio_ring.ko: kernel/virtio.ko\n',
  )
  expect(parseModulesDep(dep).get('virtio_pci')).toEqual(['virtio_ring', 'virtio'])
  expect(formatModulesAlias(modules)).toContain('alias pci:virtio_pci* virtio_pci\n')
  expect(parseModulesSoftdep('# x\nsoftdep ext4 pre: crc32c\nsoftdep y post: z\n')).toEqual(
    new Map([['ext4', ['crc32c']]]),
  )
})
