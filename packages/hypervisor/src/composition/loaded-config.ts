/** A configuration that has been read. */

import type { ModuleSource } from '@nonroot/contracts'
import type { StackConfig } from './config-schema.ts'
import { nodeAt } from './config-tree.ts'
import type { ConfigNode, ConfigPath } from './config-tree.ts'

/** Plain data that can be sent to another thread, unless a configuration file that is code contains something else. */
export interface LoadedConfig {
  /** The file that was requested. */
  readonly file: string
  readonly config: StackConfig
  /** The positions of all keys and values. */
  readonly tree: ConfigNode
}

/** Used in place of a file name for later changes. */
export const OVERRIDE = '--set '

/** Folder that paths at `path` are relative to: that of the file that contains them. */
export function folderOf({ tree }: LoadedConfig, path: ConfigPath, source: ModuleSource): string {
  const written = nodeAt(tree, path).at.file
  return written.startsWith(OVERRIDE) ? source.workingFolder : source.folderOf(written)
}
