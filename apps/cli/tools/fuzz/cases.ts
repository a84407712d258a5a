/** From a number to a hostile guest and the stack that it runs on. */

import type { BootImage } from '@nonroot/contracts'
import { probingGuest, randomGuest } from './programs.ts'
import { createRandom } from './random.ts'
import type { Random } from './random.ts'

export interface FuzzFile {
  readonly name: string
  readonly protocol: 'linux' | 'multiboot' | 'pvh' | 'firmware'
  readonly bytes: Uint8Array
}

export interface FuzzCase {
  readonly family: 'probe' | 'random' | 'image' | 'initrd' | 'memory'
  readonly protocol: FuzzFile['protocol']
  readonly image: BootImage
  readonly set: readonly string[]
  readonly limitMs: number
}

/** Debian's kernel takes that long to unpack its initramfs on a machine that has other things to do. */
const BOOT_MS = 20_000

const SIZES = [
  '0',
  '0 B',
  '1 B',
  '4095 B',
  '4 KiB',
  '640 KiB',
  '1 MiB',
  '1 MiB + 1',
  '-1 MiB',
  '2 MiB',
  '3 MiB',
  '1.5 MiB',
  '64 MB',
  '1 TiB',
  '1 EiB',
  '1e30',
  'NaN',
  'Infinity',
  '',
  ' ',
  'a lot',
  '18446744073709551615',
  '9007199254740993',
  'null',
  '[]',
  '{}',
  'true',
] as const

/** `initrds`: initramfs archives that the Linux kernels among the files boot with. */
export function fuzzCase(seed: number, files: readonly FuzzFile[], initrds: readonly Uint8Array[]): FuzzCase {
  const random = createRandom(seed)
  const stack = [
    'machine.memory=64 MiB',
    'machine.onReset=end',
    `stack.paging.strategy=${random.of(['ept', 'shadow'])}`,
    `stack.abi.strategy=${random.of(['kvm', 'bare'])}`,
    `machine.vcpus=${random.of([1, 1, 1, 2])}`,
    `machine.clock=${random.of(['wall', 'deterministic'])}`,
  ]
  const choice = random.below(11)
  const guest = { set: stack, protocol: 'multiboot', limitMs: 1500 } as const
  if (choice < 4) return { ...guest, family: 'probe', image: { kernel: probingGuest(random) } }
  if (choice < 7) return { ...guest, family: 'random', image: { kernel: randomGuest(random) } }
  const kernels = files.filter(({ protocol }) => protocol === 'linux' || protocol === 'pvh')
  if (choice === 10 && initrds.length > 0 && kernels.length > 0) {
    const { protocol, bytes } = random.of(kernels)
    const image = {
      kernel: bytes,
      initrd: spoiltArchive(random.of(initrds), random),
      // A panic resets at once, which ends the guest.
      cmdline: 'console=ttyS0 cryptomgr.notests quiet panic=-1',
    }
    return { family: 'initrd', protocol, limitMs: BOOT_MS, set: [...stack, 'machine.memory=256 MiB'], image }
  }
  const file = random.of(files)
  const key = file.protocol === 'firmware' ? 'firmware' : 'kernel'
  const of = { protocol: file.protocol, limitMs: 2500 } as const
  if (choice === 7) {
    const memory = random.of(SIZES)
    return { ...of, family: 'memory', image: { [key]: file.bytes }, set: [...stack, `machine.memory=${memory}`] }
  }
  const image = {
    [key]: spoilt(file.bytes, random),
    cmdline: random.chance(4) ? 'x'.repeat(random.below(100_000)) : 'console=ttyS0',
  }
  return { ...of, family: 'image', set: [...stack, 'machine.memory=256 MiB'], image }
}

/** An initramfs as it should not be: also none, noise, or more than fits. */
function spoiltArchive(archive: Uint8Array, random: Random): Uint8Array {
  switch (random.below(8)) {
    case 0:
      return new Uint8Array()
    case 1:
      return Uint8Array.from({ length: 1 + random.below(100_000) }, () => random() >>> 24)
    case 2: {
      // Noise behind what is right, up to more than the machine has.
      const longer = new Uint8Array(archive.length + random.below(1 << 28))
      longer.fill(random() >>> 24)
      longer.set(archive)
      return longer
    }
    case 3: {
      // The lengths of a file and of its name are the fields that an unpacker trusts. (initramfs buffer format)
      const copy = archive.slice()
      for (let count = 1 + random.below(4); count > 0; count--)
        copy.set(
          new TextEncoder().encode(random.of(['FFFFFFFF', '7FFFFFFF', '00000000', 'zzzzzzzz'])),
          random.of([54, 94]),
        )
      return copy
    }
    default:
      return spoilt(archive, random)
  }
}

/** Cut off, lengthened, or with wrong bytes in its headers or anywhere. */
function spoilt(bytes: Uint8Array, random: Random): Uint8Array {
  switch (random.below(6)) {
    case 5: {
      // More than any memory that the machine has.
      const longer = new Uint8Array((256 << 20) + random.below(64 << 20))
      longer.set(bytes)
      return longer
    }
    case 0:
      return bytes.slice(0, random.below(bytes.length))
    case 1:
      return bytes.slice(0, random.below(Math.min(bytes.length, 8192)))
    case 2: {
      const longer = new Uint8Array(bytes.length + random.below(1 << 20))
      longer.set(bytes)
      return longer
    }
    case 3: {
      const copy = bytes.slice()
      for (let count = 1 + random.below(8); count > 0; count--)
        copy[random.below(Math.min(copy.length, 4096))] = random()
      return copy
    }
    default: {
      const copy = bytes.slice()
      for (let count = 1 + random.below(64); count > 0; count--) copy[random.below(copy.length)] = random()
      return copy
    }
  }
}
