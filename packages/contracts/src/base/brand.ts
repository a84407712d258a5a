/** Nominal types over plain values, without run-time cost. */

declare const brand: unique symbol

/** A `T` that cannot be confused with other `T`s. Its constructor makes one (`gpa(0x1000)`); it can be used as a `T`. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name }
