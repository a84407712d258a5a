/** Errors between threads: an error loses its class on the way, so its parts are sent. */

import { NonrootError } from '@nonroot/contracts'
import { systemError } from '@nonroot/host-node'
import type { NonrootErrorInit } from '@nonroot/contracts'
import type { SentError } from './protocol.ts'

export const sendError = (error: unknown): SentError => ({
  known: (error instanceof NonrootError ? error : systemError(error))?.toJSON(),
  message: error instanceof Error ? error.message : String(error),
  stack: error instanceof Error ? error.stack : undefined,
})

export function receiveError({ known, message, stack }: SentError): Error {
  const error = known ? revive(known) : new Error(message)
  if (stack) error.stack = stack
  return error
}

const revive = ({ errors, ...init }: Record<string, unknown>): NonrootError =>
  new NonrootError({
    ...(init as unknown as NonrootErrorInit),
    ...(Array.isArray(errors) ? { errors: errors.map((one) => revive(one as Record<string, unknown>)) } : {}),
  })
