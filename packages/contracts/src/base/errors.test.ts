import { describe, expect, it } from 'vitest'
import { Clock, ExitCode, invariant, NonrootError, tokenName } from '../index.ts'
import type { ErrorCode } from '../index.ts'

describe('errors', () => {
  it.each<{ code: ErrorCode; exit: number }>([
    { code: 'config.schema', exit: ExitCode.configuration },
    { code: 'plugin.timeout', exit: ExitCode.configuration },
    { code: 'stack.incompatible', exit: ExitCode.configuration },
    { code: 'usage', exit: ExitCode.configuration },
    { code: 'host.file', exit: ExitCode.host },
    { code: 'boot.image', exit: ExitCode.configuration },
    { code: 'guest.crashed', exit: ExitCode.guestCrashed },
    { code: 'guest.timeout', exit: ExitCode.timeout },
    { code: 'internal', exit: ExitCode.internal },
  ])('$code ends with $exit', ({ code, exit }) => {
    expect(new NonrootError({ code, message: 'x' }).exitCode).toBe(exit)
  })

  it('describes itself with place and remedy', () => {
    const error = new NonrootError({
      code: 'config.schema',
      message: 'queue size 300 is not a power of two',
      remedy: 'valid: 1 to 1024',
      location: { file: 'a.yaml', line: 3, column: 7 },
    })
    expect(error.describe()).toBe('a.yaml:3:7: queue size 300 is not a power of two\n  valid: 1 to 1024')
  })

  it('becomes JSON, whatever its value is', () => {
    const error = new NonrootError({ code: 'internal', message: 'x', value: 7n })
    expect(JSON.parse(JSON.stringify(error))).toEqual({ code: 'internal', message: 'x', value: '7' })
  })

  it('are told by name: of another copy of this package, and of a class of their own', () => {
    class Other extends Error {
      override readonly name = 'NonrootError'
      readonly exitCode = 2
    }
    class Special extends NonrootError {}
    const plain = new NonrootError({ code: 'usage', message: 'x' })
    const special = new Special({ code: 'usage', message: 'x' })
    const is = (value: unknown) => [value instanceof NonrootError, value instanceof Special]
    expect([new Other(), plain, special, new Error('x'), { name: 'NonrootError', exitCode: 2 }].map(is)).toEqual([
      [true, false],
      [true, false],
      [true, true],
      [false, false],
      [false, false],
    ])
  })

  it('invariant throws when we are wrong', () => {
    expect(() => invariant(false, 'empty region')).toThrow('empty region')
    expect(() => invariant(true, '')).not.toThrow()
  })

  it('a token is the same in two copies of the package, and named as its interface', () => {
    expect(Clock).toBe(Symbol.for('@nonroot/contracts/Clock'))
    expect(tokenName(Clock)).toBe('Clock')
  })
})
