/**
 * Standard Schema (version 1), structurally: the interface of zod, valibot and arktype schemas. Plugins use any of these libraries, and the kernel
 * needs none of them. (Standard Schema specification, standardschema.dev)
 */

export interface SchemaIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

export type SchemaResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly SchemaIssue[] }

export interface Schema<Output = unknown, Input = unknown> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
  }
}

/** For parts without options: every key is refused. */
export const noOptions: Schema<Record<never, never>> = {
  '~standard': {
    version: 1,
    vendor: 'nonroot',
    validate: (value) => {
      const keys = value !== null && typeof value === 'object' ? Object.keys(value) : []
      return keys.length ? { issues: keys.map((key) => ({ message: 'takes no options', path: [key] })) } : { value: {} }
    },
  },
}
