/** Options of `nonroot run`. */

export interface RunOptions {
  readonly set: readonly string[]
  readonly disk?: string
  readonly network?: string
  readonly forward?: readonly string[]
  readonly loopback?: readonly string[]
  readonly kernel?: string
  readonly initrd?: string
  readonly cmdline?: string
  /** Addresses of mirrors. */
  readonly mirror?: readonly string[]
  readonly memory?: string
  readonly timeout?: string
  readonly stopTimeout?: string
  readonly maxRss?: string
  /** `KIND,OPTION=VALUE`, each. */
  readonly device?: readonly string[]
  readonly stats?: boolean | 'text' | 'json'
  readonly logFormat?: 'text' | 'json'
  readonly trace?: string
  readonly profile?: string
  readonly symbols?: string
  readonly name?: string
  readonly logs?: string
  readonly verbose?: boolean
  /** What came after `--`. */
  readonly command?: readonly string[]
}

/** The configuration as the command line names it. */
export interface RunSource {
  readonly stackFile: string
  /** `KEY=VALUE`, as after `--set`. */
  readonly set: readonly string[]
}
