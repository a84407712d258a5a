/** The vCPU block's slots that floating point touches. A copy of src/state/layout.ts, which a test holds it to. */

/** 16 bytes that slow paths hand values through. */
export const VALUE: u32 = 0x310
/** Physical x87 registers, 16 bytes each: significand u64, then sign and exponent u16. */
export const FPR: u32 = 0x500
export const FPU_CONTROL: u32 = 0x580
export const FPU_STATUS: u32 = 0x584
/** Bit n set: physical register n is not empty. */
export const FPU_TAG: u32 = 0x588
export const MXCSR: u32 = 0x5a4
export const FLOAT_EXCEPTION: u32 = 0x5a8
