import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { BareMetal } from '../testing/bare-metal.ts'
import { buildPrebuilt, readPrebuilt } from './prebuilt.ts'

const LIST = readFileSync(new URL('../../common-shapes.txt', import.meta.url), 'utf8')
/** MOV ECX, 1000; DEC ECX; JNZ back; HLT: 16-bit code. */
const LOOP = [0x66, 0xb9, 0xe8, 0x03, 0, 0, 0x66, 0x49, 0x75, 0xfc, 0xf4]
/** DEC ECX as 16-bit code of real mode has it. */
const DEC = '0 6649'

describe('handlers made ahead', () => {
  it('run as those made on demand do', () => {
    const prebuilt = readPrebuilt(buildPrebuilt(`${DEC}\n`, 'one'), 'one')
    const machines = [new BareMetal({ prebuilt }), new BareMetal()]
    for (const machine of machines) {
      machine.enter('real')
      expect(machine.run(LOOP, 10_000)).toBe('halt')
    }
    expect(machines[0]!.processor.retired).toBe(machines[1]!.processor.retired)
    expect(prebuilt!.names.length).toBeGreaterThan(3)
  })

  it.each([
    { made: 'one', own: 'other' },
    { made: '', own: '' },
  ])("are refused where they are another build's: made by '$made', read by '$own'", ({ made, own }) => {
    expect(readPrebuilt(buildPrebuilt('', made), own)).toBeUndefined()
  })

  it('are those of every example that is listed', () => {
    const names = readPrebuilt(buildPrebuilt(LIST, 'all'), 'all')!.names
    expect(names.length).toBeGreaterThan(LIST.split('\n').length)
  })
})
