/** Turns issues of any Standard Schema into errors with position, value, valid values and the closest valid spelling. */

import { NonrootError } from '@nonroot/contracts'
import type { ErrorCode, Schema, SchemaIssue } from '@nonroot/contracts'
import { child, keyLocation, nodeAt, pathText, toValue } from './config-tree.ts'
import type { ConfigNode, ConfigPath } from './config-tree.ts'
import { suggest } from './spelling.ts'

/** The part of JSON Schema that is used to describe valid values. */
export interface JsonSchema {
  readonly type?: string | readonly string[]
  readonly description?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly examples?: readonly unknown[]
  readonly minimum?: number
  readonly maximum?: number
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
}

/** Zod and others provide more than the standard requires. */
interface RichIssue extends SchemaIssue {
  readonly code?: string
  readonly keys?: readonly string[]
  readonly errors?: readonly (readonly RichIssue[])[]
}

/** The schema's description of itself (Standard JSON Schema), if it has one. */
export function jsonSchemaOf(schema: Schema): JsonSchema | undefined {
  const standard = schema['~standard'] as unknown as {
    jsonSchema?: { input(options: { target: string }): JsonSchema }
  }
  try {
    return standard.jsonSchema?.input({ target: 'draft-2020-12' })
  } catch {
    return undefined
  }
}

function schemaAt(schema: JsonSchema | undefined, path: ConfigPath): JsonSchema | undefined {
  let at = schema
  for (const step of path) at = typeof step === 'number' ? at?.items : at?.properties?.[step]
  return at
}

function valid(schema: JsonSchema | undefined): string | undefined {
  if (!schema) return undefined
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' or ')
  if (Array.isArray(schema.type) || schema.anyOf) return schema.description
  const type = schema.type as string | undefined
  const { minimum = -Infinity, maximum = Infinity } = schema
  const safe = Number.MAX_SAFE_INTEGER
  const range =
    minimum > -safe && maximum < safe
      ? ` from ${minimum} to ${maximum}`
      : minimum > -safe
        ? ` of at least ${minimum}`
        : ''
  const kind = type && ({ integer: 'a whole number', object: 'a map of keys', array: 'a list' }[type] ?? `a ${type}`)
  return [kind && kind + range, schema.description].filter(Boolean).join(': ') || undefined
}

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

export interface IssueContext {
  readonly code: ErrorCode
  readonly root: ConfigNode
  /** Path of the validated value in the file. */
  readonly prefix: ConfigPath
  readonly schema: JsonSchema | undefined
  /** Named in the message: `@nonroot/mmu ept`. */
  readonly owner?: string
  /** Keys beside the schema's own that are allowed there (`use`, `kind`). */
  readonly alsoValid?: readonly string[]
}

export const issuesToErrors = (issues: readonly SchemaIssue[], context: IssueContext): NonrootError[] =>
  issues.flatMap((issue) => issueToErrors(issue as RichIssue, context))

function issueToErrors(issue: RichIssue, context: IssueContext): NonrootError[] {
  const { code, root, prefix } = context
  const inner = (issue.path ?? []).map((step) => {
    const key = typeof step === 'object' ? step.key : step
    return typeof key === 'number' ? key : String(key)
  })
  const path = [...prefix, ...inner]
  const schema = schemaAt(context.schema, inner)
  const of = context.owner ? ` of ${context.owner}` : ''

  if (issue.code === 'unrecognized_keys' && issue.keys) {
    const known = [...Object.keys(schema?.properties ?? {}), ...(inner.length ? [] : (context.alsoValid ?? []))]
    return issue.keys.map(
      (key) =>
        new NonrootError({
          code,
          message: `${pathText([...path, key])}: unknown ${context.owner ? 'option' : 'key'} "${key}"${of}`,
          thing: pathText([...path, key]),
          value: toValue(nodeAt(root, [...path, key])),
          remedy: suggest(key, known) || 'it takes no options',
          location: keyLocation(root, [...path, key]),
        }),
    )
  }

  const last = path.at(-1)
  const parent = nodeAt(root, path.slice(0, -1))
  const missing = last !== undefined && child(parent, last) === undefined
  const what = valid(schema)
  const name = pathText(path)
  if (missing) {
    const missingRemedy = what ? `valid: ${what}` : issue.message
    return [
      new NonrootError({
        code,
        message: `${name} is missing${of ? ` (an option${of})` : ''}`,
        thing: name,
        remedy: missingRemedy,
        location: parent.at,
      }),
    ]
  }
  const value = toValue(nodeAt(root, path))
  const words = (schema?.enum ?? (schema?.const === undefined ? [] : [schema.const])).filter(
    (word) => typeof word === 'string',
  )
  const said = issue.code === 'custom' || !what ? `: ${issue.message}` : ' is not valid'
  const remedy = words.length && typeof value === 'string' ? suggest(value, words) : what ? `valid: ${what}` : undefined
  return [
    new NonrootError({
      code,
      message:
        issue.code === 'custom' || !what
          ? `${name}${said}${of && ` (an option${of})`}`
          : `${name}: ${shown(value)}${said}${of}`,
      thing: name,
      value,
      ...(remedy ? { remedy } : {}),
      location: nodeAt(root, path).at,
    }),
  ]
}

/** Returns one error itself, several as one that contains them. */
export function throwAll(errors: readonly NonrootError[], message: string): void {
  if (errors.length === 1) throw errors[0]!
  if (errors.length) throw new NonrootError({ code: errors[0]!.code, message: `${errors.length} ${message}`, errors })
}
