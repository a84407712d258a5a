/** A profile as a file: folded stacks, which flame graph tools read, or speedscope's format where the name ends in `.json`. */
import { writeFile } from 'node:fs/promises'
import { NonrootError } from '@nonroot/contracts'
import type { FoldedStack } from './profiler.ts'

export async function writeProfile(path: string, stacks: readonly FoldedStack[]): Promise<void> {
  const text = path.endsWith('.json') ? speedscope(stacks) : folded(stacks)
  try {
    await writeFile(path, text)
  } catch (error) {
    const message = `cannot write the profile ${path}: ${(error as Error).message}`
    throw new NonrootError({ code: 'host.file', message, thing: path, value: path, cause: error })
  }
}

const NS_PER_US = 1000

/** One stack a line, its frames and how many microseconds it had. */
export function folded(stacks: readonly FoldedStack[]): string {
  return stacks
    .map(([stack, ns]) => [stack, Math.round(ns / NS_PER_US)] as const)
    .filter(([, us]) => us > 0)
    .map(([stack, us]) => `${stack} ${us}\n`)
    .join('')
}

/** (speedscope, "Importing from custom sources") */
export function speedscope(stacks: readonly FoldedStack[]): string {
  const frames: { name: string }[] = []
  const numbers = new Map<string, number>()
  const number = (name: string): number => {
    let known = numbers.get(name)
    if (known === undefined) {
      numbers.set(name, (known = frames.length))
      frames.push({ name })
    }
    return known
  }
  const samples = stacks.map(([stack]) => stack.split(';').map(number))
  const weights = stacks.map(([, ns]) => ns)
  const endValue = weights.reduce((a, b) => a + b, 0)
  const profile = { type: 'sampled', name: 'guest', unit: 'nanoseconds', startValue: 0, endValue, samples, weights }
  const schema = 'https://www.speedscope.app/file-format-schema.json'
  return JSON.stringify({
    $schema: schema,
    name: 'nonroot',
    exporter: 'nonroot',
    shared: { frames },
    profiles: [profile],
  })
}
