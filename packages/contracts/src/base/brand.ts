/** Nominal types over plain values. Costs nothing at run time. */

declare const brand: unique symbol

/** `T` that is not mixed up with other `T`s: make one with its maker (`gpa(0x1000)`), use it as a `T`. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name }
