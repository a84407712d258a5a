/**
 * Plugins that are in the command's own files. The bundle (tools/bundle.js) has its list in this one's place: each dependency of ours that is
 * a plugin. From source and from an unbundled build there are none, and plugins come from their packages.
 */

export interface ShippedPlugin {
  readonly version: string
  /** The package's default export. */
  readonly plugin: unknown
}

/** By the package's name. */
export const shipped: ReadonlyMap<string, ShippedPlugin> = new Map()
