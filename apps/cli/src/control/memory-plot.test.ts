import { describe, expect, it } from 'vitest'
import { MemoryHistory, memoryPlot, type MemorySample } from './memory-plot.ts'

/** 1024 frames are 4 MiB. */
const sample = (seconds: number, free: number, vms: [string, number, number][]): MemorySample => ({
  seconds,
  host: { guestFrames: 1024, freeGuestFrames: free },
  vms: vms.map(([name, residentFrames, sharedFrames]) => ({ name, memory: { residentFrames, sharedFrames } })),
})
const areas = (svg: string): string[] => [...svg.matchAll(/points="([^"]*)"/g)].map(([, points]) => points!)

describe('memory over time', () => {
  it('has an area for each VM, for what is shared, and for what is free', () => {
    const svg = memoryPlot('a <b>', [
      sample(0, 768, [['web', 256, 0]]),
      sample(10, 256, [
        ['web', 512, 256],
        ['db', 512, 256],
      ]),
    ])
    // The height of 320 is 1024 frames; from the top at 34 to 354.
    expect(areas(svg)).toEqual([
      '60.0,274.0 960.0,274.0 960.0,354.0 60.0,354.0',
      '60.0,274.0 960.0,194.0 960.0,274.0 60.0,274.0',
      '60.0,274.0 960.0,114.0 960.0,194.0 60.0,274.0',
      '60.0,34.0 960.0,34.0 960.0,114.0 60.0,274.0',
    ])
    for (const text of ['web', 'db', 'shared, tables, compressed', 'free', 'a &#60;b&#62;', '10 s'])
      expect(svg).toContain(`>${text}</text>`)
  })

  it('is a picture without samples, too', () => {
    expect(areas(memoryPlot('empty', []))).toEqual([])
    expect(areas(memoryPlot('one', [sample(3, 0, [])]))).toEqual([])
  })

  it('has a bound, however long the host runs', () => {
    const history = new MemoryHistory()
    for (let second = 0; second <= 10_000; second++) history.add(sample(second, 0, [['web', 1024, 0]]))
    const [web] = areas(history.svg('long'))
    expect(web!.split(' ').length).toBeLessThanOrEqual(2 * 1200)
    expect(web).toContain('60.0,34.0')
  })
})
