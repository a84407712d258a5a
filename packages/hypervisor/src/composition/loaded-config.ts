/** A configuration as it was read. Knows not how. */

import type { ModuleSource } from '@nonroot/contracts'
import type { StackConfig } from './config-schema.ts'
import { nodeAt } from './config-tree.ts'
import type { ConfigNode, ConfigPath } from './config-tree.ts'

/** Plain data: it can be sent to another thread, unless a configuration that is code put something else into it. */
export interface LoadedConfig {
  /** The file that was asked for. */
  readonly file: string
  readonly config: StackConfig
  /** Where everything was written. */
  readonly tree: ConfigNode
}

/** In place of a file's name, before a change that was made afterwards. */
export const OVERRIDE = '--set '

/** Folder that paths at `path` are relative to: that of the file which wrote them. */
export function folderOf({ tree }: LoadedConfig, path: ConfigPath, source: ModuleSource): string {
  const written = nodeAt(tree, path).at.file
  return written.startsWith(OVERRIDE) ? source.workingFolder : source.folderOf(written)
}
