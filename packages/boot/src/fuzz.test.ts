/** Images damaged at random: each boots or is refused by an error of ours, in bounded time. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { createFirmware } from './firmware.ts'
import { createBzImage, createElf64, createMachine, errorOf, seeded } from './images.test.support.ts'
import { createLinux } from './linux.ts'
import { createMultiboot } from './multiboot.ts'
import { createPvh } from './pvh.ts'

const guestElf = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../../../guests/${name}/${name}.elf`, import.meta.url)))

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff]
const ROUNDS = process.env['NONROOT_LONG'] ? 20_000 : 600

it.each([
  { name: 'linux, bzImage', protocol: createLinux(), original: createBzImage().bytes, headers: 0x400 },
  { name: 'linux, ELF', protocol: createLinux(), original: createElf64().bytes, headers: 200 },
  { name: 'pvh', protocol: createPvh(), original: createElf64().bytes, headers: 200 },
  { name: 'pvh, demo', protocol: createPvh(), original: guestElf('demo'), headers: 160 },
  { name: 'multiboot', protocol: createMultiboot(), original: guestElf('hello'), headers: 100 },
  { name: 'firmware', protocol: createFirmware(), original: new Uint8Array(0x2000).fill(1), headers: 0x2000 },
])('$name', ({ protocol, original, headers }) => {
  const random = seeded(0x5eed)
  const machine = createMachine(32)
  let refused = 0
  for (let round = 0; round < ROUNDS; round++) {
    let image = original.slice()
    const changes = 1 + random(6)
    for (let change = 0; change < changes; change++) {
      image[random(Math.min(headers, image.length))] =
        random(2) === 0 ? INTERESTING[random(INTERESTING.length)]! : random(256)
    }
    if (random(8) === 0) image = image.subarray(0, random(image.length))
    if (errorOf(() => protocol.load({ kernel: image, firmware: image, cmdline: 'x' }, machine))) refused++
  }
  expect(refused).toBeGreaterThan(0)
})
