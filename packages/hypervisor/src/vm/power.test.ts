import { describe, expect, it } from 'vitest'
import { PowerSwitch } from './power.ts'

function bench() {
  let requests = 0
  const power = new PowerSwitch(() => requests++)
  return { power, requests: () => requests }
}

describe('power', () => {
  it.each([
    { name: 'off', act: (power: PowerSwitch) => power.powerOff(), end: { state: 'poweredOff' } },
    { name: 'exit', act: (power: PowerSwitch) => power.exit(7), end: { state: 'exited', status: 7 } },
    { name: 'crash', act: (power: PowerSwitch) => power.crashed('why'), end: { state: 'crashed', reason: 'why' } },
  ])('$name ends the VM, and what comes later does not', ({ act, end }) => {
    const { power, requests } = bench()
    act(power)
    power.exit(9)
    power.powerOff()
    expect([power.end, power.resetRequested, requests()]).toEqual([end, false, 3])
  })

  it('reset does not end it', () => {
    const { power, requests } = bench()
    power.reset()
    expect([power.end, power.resetRequested, requests()]).toEqual([undefined, true, 1])
  })

  it.each([
    { answers: [], notified: false },
    { answers: [false], notified: false },
    { answers: [true], notified: true },
    { answers: [true, false], notified: true },
    { answers: [false, true], notified: true },
  ])('its button reaches all that listen: $answers', ({ answers, notified }) => {
    const { power } = bench()
    const heard: number[] = []
    const off = answers.map((answer, n) => power.onPowerButton(() => (heard.push(n), answer)))
    expect(power.pressButton()).toBe(notified)
    expect(heard).toEqual([...answers.keys()])
    for (const stop of off) stop()
    expect(power.pressButton()).toBe(false)
    expect(heard.length).toBe(answers.length)
  })
})
