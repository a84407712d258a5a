/** What a host keeps of compiled guest code from one run to the next. */

/** Opens what was kept for an identity, which stands for a build of the processor: what another build made is of no use. */
export type OpenCodeMemory = (identity: string) => CodeMemory

/**
 * Records under keys of 32 bits, both the processor's own. Several may have one key. A host that cannot read or write has no records, and says nothing; one
 * that keeps them in a file gives none that was damaged. Whoever may write there may run code in the processor's memory, as with the caches of programs.
 */
export interface CodeMemory {
  /** Whether there may be a record. Called for each block that is decoded. */
  has(key: number): boolean
  /** The records there are, the newest first. */
  find(key: number): readonly Uint8Array[]
  add(records: readonly CodeRecord[]): void
  /** It is used no more. */
  dispose(): void
}

export interface CodeRecord {
  readonly key: number
  readonly bytes: Uint8Array
}
