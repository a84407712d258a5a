/** The three kinds of address, and frames. */

import type { Brand } from './brand.ts'

/** Guest-virtual address: 64 bits, canonical or not. Used by instructions. */
export type Gva = Brand<bigint, 'gva'>
/** Guest-physical address, 0 to 2^52 - 1 (a safe integer). Used by devices, boot protocols and the second stage. */
export type Gpa = Brand<number, 'gpa'>
/** Host-physical address: the byte offset into the host's one WebAssembly memory, 0 to 2^32 - 1. */
export type Hpa = Brand<number, 'hpa'>

export const gva = (address: bigint): Gva => BigInt.asUintN(64, address) as Gva
export const gpa = (address: number): Gpa => address as Gpa
export const hpa = (address: number): Hpa => address as Hpa

/** Bytes in a frame: a 4 KiB page of host memory. */
export const FRAME_SIZE = 4096
export const FRAME_SHIFT = 12
export const FRAME_MASK = 0xfff

/** The kind of a memory access. `fetch` is an instruction fetch. */
export type Access = 'read' | 'write' | 'fetch'
