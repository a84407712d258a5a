/**
 * Random bytes run as code in every mode: nothing a guest does may throw, hang or reach out of its memory.
 * `node --conditions=@nonroot/source tools/fuzz.ts --seconds 60 --seed 1 [--compile]`
 */
import { parseArgs } from 'node:util'
import { BareMetal, GUEST_SIZE, PLACE, SELECTOR } from '../src/testing/bare-metal.ts'
import { S } from '../src/state/layout.ts'

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string', default: '1' }, compile: { type: 'boolean', default: false } },
})

let seed = Number(values.seed)
/** 24 bits. (Knuth's linear congruential generator) */
function random(): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) | 0
  return (seed >>> 8) & 0xff_ffff
}
const pick = <T>(list: readonly T[]): T => list[random() % list.length]!

const MODES = ['real', 'protected', 'long', 'compatibility'] as const
/** First bytes of what reaches deepest: system instructions and far transfers. */
const OPENINGS = [
  '0f00', '0f01', '0f02', '0f03', '0fae', '0f20', '0f21', '0f22', '0f23', '0f30', '0f32', 'cf', '48cf', '66cf', 'cb', '48cb', 'ca', '9a', 'ea', 'ff',
  '8e', '8c', '9c', '9d', 'cd', 'cc', 'ce', 'f1', '0f05', '0f07', '0f34', '0f35', '07', '17', '1f', '0fa1', '0fa9', 'c4', 'c5', '0fb2', '63', '62', '6c',
  '6e', 'f36d', 'e4', 'ec', 'ee', '0fc7', '0f3882', 'fa', 'fb', 'c8',
].map((hex) => hex.match(/../g)!.map((byte) => parseInt(byte, 16)))
const WORDS = [8, 0x10, 0x18, 0x23, 0x2b, 0x33, 0x50, 0x58, PLACE.code, 2, 0x202, 0x2_0002, 0x4002, 0x102]

function registerValue(): bigint {
  switch (random() % 6) {
    case 0: return BigInt(random() % 0x200)
    case 1: return BigInt(PLACE.data + (random() % 0x1000))
    case 2: return 0xffff_ffff_8000_0000n + BigInt(random())
    case 3: return (BigInt(random()) << 40n) | BigInt(random())
    default: return BigInt(PLACE.stack - (random() % 256))
  }
}

function prepare(machine: BareMetal): string {
  const mode = pick(MODES)
  const cpl = mode !== 'real' && random() & 1 ? 3 : 0
  machine.enter(mode, cpl)
  for (let n = 0; n < 16; n++) machine.set(n, registerValue())
  if (random() & 7) machine.set(4, PLACE.stack - 8 * (random() % 16))
  for (let n = 0; n < 32; n++) machine.write64(PLACE.stack - 8 * n, BigInt(random() & 1 ? pick(WORDS) : random()))
  if (random() % 4 === 0) machine.flags = (random() & 0x25_7fd5) | 2
  if (random() % 8 === 0) machine.gate(SELECTOR.free, SELECTOR.code32, PLACE.code, 0xec)
  const code: number[] = []
  while (code.length < 90) code.push(...(random() % 3 === 0 ? pick(OPENINGS) : [random() & 0xff]))
  machine.write(PLACE.code, code)
  machine.core.set64(S.rip, BigInt(PLACE.code))
  return `${mode} at CPL ${cpl}`
}

const started = Date.now()
const outcomes = new Map<string, number>()
let machine = new BareMetal({ compile: values.compile })
let runs = 0
while (Date.now() - started < Number(values.seconds) * 1000) {
  const before = seed
  if (runs % 200 === 0) machine = new BareMetal({ compile: values.compile })
  const guard = machine.memory.bytes.slice(GUEST_SIZE + (16 << 20), GUEST_SIZE + (16 << 20) + 64).join()
  const where = prepare(machine)
  try {
    for (let round = 0; round < 12; round++) {
      const stop = machine.processor.run(200)
      const key = `${where}: ${stop}`
      outcomes.set(key, (outcomes.get(key) ?? 0) + 1)
      // Where a fault ended it, go on somewhere else in the code.
      machine.core.set64(S.rip, BigInt(PLACE.code + (random() % 90)))
      if (random() & 1) machine.set(4, PLACE.stack - 8 * (random() % 16))
    }
  } catch (error) {
    console.error(`seed ${before}, ${where}`)
    throw error
  }
  if (machine.memory.bytes.slice(GUEST_SIZE + (16 << 20), GUEST_SIZE + (16 << 20) + 64).join() !== guard) throw new Error(`seed ${before}: wrote outside guest memory`)
  runs++
}
for (const [key, count] of [...outcomes].sort()) console.log(`${key.padEnd(40)} ${count}`)
console.log(`${runs} pieces of code in ${values.seconds} s, seed ${values.seed}`)
