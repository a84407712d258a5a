/** `nonroot run`. Thin: composing and running are the hypervisor's. */

import { ExitCode } from '@nonroot/contracts'
import { defaultStack } from '../host.ts'
import type { CommandIo } from '../io.ts'
import { treeText, viewStack } from '../stack-view.ts'
import { load } from './load.ts'

export async function run(
  file: string | undefined,
  options: { set: readonly string[] },
  io: CommandIo,
): Promise<number> {
  const path = file ?? defaultStack()
  const stack = await load(path, options.set)
  io.err(treeText(viewStack(stack), path))
  io.err('This is the stack, complete and checked. Running a guest on it is not built yet.\n')
  return ExitCode.ok
}
