/** Errors thrown for mistakes on our side: configuration, plugin, embedder, bug. The result of anything a guest does is a value, never one of these. */

/** Where in a source file an error was found. Lines and columns start at 1. */
export interface SourceLocation {
  readonly file: string
  readonly line?: number
  readonly column?: number
}

/** Exit status of the command for each class of error. 0 is success; a guest's own status is passed through by `run`. */
export const ExitCode = {
  ok: 0,
  /** A bug of ours: an invariant failed. */
  internal: 1,
  /** Configuration, plugin or command line is wrong: nothing was run. */
  configuration: 2,
  /** A file, a back end or another resource of the host failed. */
  host: 3,
  /** The guest crashed: triple fault, failed entry, panic. */
  guestCrashed: 4,
  /** The guest hung, or `--timeout` passed. (As timeout(1).) */
  timeout: 124,
  /** Interrupted by the user. */
  interrupted: 130,
} as const
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]

/** Class of an error, for scripts. Stable across versions. */
export type ErrorCode =
  | 'config.file'
  | 'config.syntax'
  | 'config.schema'
  | 'config.extends'
  | 'config.override'
  | 'plugin.notFound'
  | 'plugin.manifest'
  | 'plugin.apiVersion'
  | 'plugin.load'
  | 'plugin.timeout'
  | 'plugin.invalid'
  | 'plugin.options'
  | 'plugin.requires'
  | 'stack.incompatible'
  | 'stack.missing'
  | 'device.unknown'
  | 'device.create'
  | 'strategy.create'
  | 'boot.image'
  | 'boot.memory'
  | 'host.file'
  | 'host.memory'
  | 'host.backend'
  | 'host.node'
  | 'host.swap'
  | 'snapshot.mismatch'
  | 'guest.crashed'
  | 'guest.timeout'
  | 'usage'
  | 'internal'

const EXIT_OF: Partial<Record<string, ExitCode>> = {
  host: ExitCode.host,
  internal: ExitCode.internal,
  snapshot: ExitCode.host,
}

export interface NonrootErrorInit {
  readonly code: ErrorCode
  /** One sentence: what is wrong, in the user's words. */
  readonly message: string
  /** The thing at fault: a key (`machine.memory`), a package, a file. */
  readonly thing?: string
  /** The value it had. */
  readonly value?: unknown
  /** What to do about it, or which values are valid. */
  readonly remedy?: string
  readonly location?: SourceLocation
  readonly cause?: unknown
  /** Further errors of the same kind: all errors of a file are reported together. */
  readonly errors?: readonly NonrootError[]
}

/** An error that names the thing, the value and the remedy. Shown without a stack trace; `code` decides the exit status. */
export class NonrootError extends Error {
  override readonly name = 'NonrootError'
  readonly code: ErrorCode
  readonly thing: string | undefined
  readonly value: unknown
  readonly remedy: string | undefined
  readonly location: SourceLocation | undefined
  readonly errors: readonly NonrootError[]

  constructor(init: NonrootErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause })
    this.code = init.code
    this.thing = init.thing
    this.value = init.value
    this.remedy = init.remedy
    this.location = init.location
    this.errors = init.errors ?? []
  }

  /** Compares by name, because a plugin may have its own copy of this package. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (this !== NonrootError) return Function.prototype[Symbol.hasInstance].call(this, value)
    return value instanceof Error && value.name === 'NonrootError' && 'exitCode' in value
  }

  get exitCode(): ExitCode {
    if (this.code === 'guest.crashed') return ExitCode.guestCrashed
    if (this.code === 'guest.timeout') return ExitCode.timeout
    return EXIT_OF[this.code.split('.')[0]!] ?? ExitCode.configuration
  }

  /** One or two lines for the user: `file:line:column: message` and the remedy. */
  describe(): string {
    const { location } = this
    const at = location
      ? [location.file, location.line, location.column].filter((part) => part !== undefined).join(':') + ': '
      : ''
    return at + this.message + (this.remedy ? `\n  ${this.remedy}` : '')
  }

  toJSON(): Record<string, unknown> {
    const { code, message, thing, value, remedy, location, errors } = this
    return {
      code,
      message,
      ...(thing === undefined ? {} : { thing }),
      ...(value === undefined ? {} : { value: jsonSafe(value) }),
      ...(remedy === undefined ? {} : { remedy }),
      ...(location === undefined ? {} : { location }),
      ...(errors.length ? { errors: errors.map((error) => error.toJSON()) } : {}),
    }
  }
}

const jsonSafe = (value: unknown): unknown =>
  typeof value === 'bigint' || typeof value === 'symbol' || typeof value === 'function' ? String(value) : value

/** Throws on a bug of ours. Never for anything a guest did. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new NonrootError({ code: 'internal', message: `invariant violated: ${message}` })
}
