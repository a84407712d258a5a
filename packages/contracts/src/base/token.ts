/** Injection tokens. A token has the name of its interface: `Clock` is a type and a value. Independent of the container. */

declare const provided: unique symbol

/**
 * Names an interface at run time. `Symbol.for`, so that two copies of this package in one process agree.
 * Any container may use it as a key; the kernel uses inversify.
 */
export type Token<T> = symbol & { readonly [provided]?: T }

export const token = <T>(name: string): Token<T> => Symbol.for(`@nonroot/contracts/${name}`) as Token<T>

/** The interface's name, for messages. */
export const tokenName = (of: Token<unknown>): string => (Symbol.keyFor(of) ?? String(of)).replace(/^.*\//, '')
