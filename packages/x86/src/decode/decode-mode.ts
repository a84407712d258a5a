/** What decoding takes from the mode key, and which instructions it disables. */
import type { Row } from '../rows/index.ts'
import { codeSizeOf, MODE } from '../state/mode.ts'
import type { DecodeMode } from './decoder.ts'

export const decodeModeOf = (mode: number): DecodeMode => ({ codeSize: codeSizeOf(mode), protectedMode: (mode & MODE.protectedMode) !== 0 })

/** x87, MMX and SSE instructions disabled by CR0 or CR4. FXSAVE and similar check themselves. */
export function isUnavailable(row: Row, mode: number): boolean {
  switch (row.attributes.unit) {
    case 'x87':
    case 'mmx':
      return (mode & MODE.noX87) !== 0
    case 'sse':
      return (mode & MODE.noSse) !== 0
    default:
      return false
  }
}
