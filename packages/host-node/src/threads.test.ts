import type { HostThread } from '@nonroot/contracts'
import { afterEach, expect, it } from 'vitest'
import { createNodeThreads } from './threads.ts'

const module = (code: string): URL => new URL(`data:text/javascript,${encodeURIComponent(code)}`)
const started: HostThread[] = []
const start = (code: string): HostThread => {
  const thread = createNodeThreads().start(module(code))
  started.push(thread)
  return thread
}
afterEach(() => {
  for (const thread of started.splice(0)) thread.dispose()
})

it('answers what is posted, in order', async () => {
  const thread = start('export const serve = (port) => port.onMessage((n) => port.post(n * 2))')
  const answers = await new Promise<unknown[]>((resolve) => {
    const got: unknown[] = []
    thread.onMessage((answer) => got.push(answer) === 3 && resolve(got))
    for (const n of [1, 2, 3]) thread.post(n)
  })
  expect(answers).toEqual([2, 4, 6])
})

it.each([
  ['whose module throws', 'throw new Error("no such luck")', /no such luck/],
  ['that exits', 'export const serve = () => process.exit(3)', /status 3/],
])('tells of a thread %s', async (_what, code, reason) => {
  const thread = start(code)
  await expect(new Promise((resolve) => thread.onEnd(resolve))).resolves.toMatch(reason)
})
