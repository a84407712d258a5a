import { KICK_BYTES } from '@nonroot/contracts'
import { expect, it } from 'vitest'
import { S } from './layout.ts'

it('keeps the words of kicks to themselves', () => {
  const inside = Object.entries(S).filter(([, offset]) => offset > S.kick && offset < S.kick + KICK_BYTES)
  expect(inside).toEqual([])
})
