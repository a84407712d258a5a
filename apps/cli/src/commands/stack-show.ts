/** `nonroot stack show`. */

import { writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { ExitCode, NonrootError } from '@nonroot/contracts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { treeText, viewStack } from '../stack-view.ts'
import { load } from './load.ts'

export async function stackShow(
  file: string,
  options: { set: readonly string[]; json?: boolean; graph?: string; statsFrom?: string },
  io: CommandIo,
): Promise<number> {
  const { statsFrom } = options
  if (statsFrom !== undefined && options.graph === undefined)
    throw new NonrootError({ code: 'usage', message: '--stats-from is for a drawing', thing: '--stats-from', remedy: 'say --graph FILE, too' })
  const view = viewStack(await load(file, options.set))
  if (options.graph !== undefined) {
    const { drawStack } = await import('../stack-graph.ts')
    const figures = statsFrom === undefined ? undefined : await (await import('../stack-figures.ts')).readFigures(statsFrom)
    await write(options.graph, drawStack(view, basename(file), figures))
    io.err(`drawn into ${options.graph}\n`)
  }
  if (options.json) json(io, view)
  else if (options.graph === undefined) io.out(treeText(view, basename(file)))
  return ExitCode.ok
}

async function write(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text)
  } catch (error) {
    const message = `cannot write ${file}: ${(error as Error).message}`
    throw new NonrootError({ code: 'host.file', message, thing: file, cause: error })
  }
}
