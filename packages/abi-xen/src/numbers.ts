/** A frame or machine address of the guest's. Beyond any machine: a number that no table has. */
export const toNumber = (value: bigint): number =>
  value >= 0n && value < 0x20_0000_0000_0000n ? Number(value) : Number.MAX_SAFE_INTEGER
