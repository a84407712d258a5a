/** Shifts, rotates, bit tests and scans. (SDM Vol. 1, "Shift and Rotate Instructions", "Bit and Byte Instructions".) */
import * as f from './flags.ts'
import { row, type RowFlags, type RowSource } from './row.ts'

/** /0 to /7 of C0, C1, D0 to D3: mnemonic, flags by one, flags by a count. */
const SHIFTS: readonly (readonly [string, RowFlags, RowFlags])[] = [
  ['ROL', f.ROTATE_ONE, f.ROTATE],
  ['ROR', f.ROTATE_ONE, f.ROTATE],
  ['RCL', f.ROTATE_CARRY_ONE, { ...f.ROTATE, reads: 'OC' }],
  ['RCR', f.ROTATE_CARRY_ONE, { ...f.ROTATE, reads: 'OC' }],
  ['SHL', f.SHIFT_ONE, f.SHIFT],
  ['SHR', f.SHIFT_ONE, f.SHIFT],
  ['SAL', f.SHIFT_ONE, f.SHIFT],
  ['SAR', f.SHIFT_ONE, f.SHIFT_ARITHMETIC],
]

const SHIFT_GROUP = SHIFTS.flatMap(([mnemonic, byOne, byCount], n) => {
  // /6 is another SHL.
  const alias = mnemonic === 'SAL' ? { semantics: 'shl', undocumented: true } : {}
  return [
    row(mnemonic, 'Eb,Ib', `C0 /${n}`, { flags: byCount, ...alias }),
    row(mnemonic, 'Ev,Ib', `C1 /${n}`, { flags: byCount, ...alias }),
    row(mnemonic, 'Eb,1', `D0 /${n}`, { flags: byOne, ...alias }),
    row(mnemonic, 'Ev,1', `D1 /${n}`, { flags: byOne, ...alias }),
    row(mnemonic, 'Eb,CL', `D2 /${n}`, { flags: byCount, ...alias }),
    row(mnemonic, 'Ev,CL', `D3 /${n}`, { flags: byCount, ...alias }),
  ]
})

const DOUBLE_SHIFTS = [
  row('SHLD', 'Ev,Gv,Ib', '0F A4 /r', { flags: f.DOUBLE_SHIFT }),
  row('SHLD', 'Ev,Gv,CL', '0F A5 /r', { flags: f.DOUBLE_SHIFT }),
  row('SHRD', 'Ev,Gv,Ib', '0F AC /r', { flags: f.DOUBLE_SHIFT }),
  row('SHRD', 'Ev,Gv,CL', '0F AD /r', { flags: f.DOUBLE_SHIFT }),
]

const BIT_TESTS = [
  row('BT', 'Ev,Gv', '0F A3 /r', { flags: f.BIT_TEST }),
  row('BTS', 'Ev,Gv', '0F AB /r', { lock: true, flags: f.BIT_TEST }),
  row('BTR', 'Ev,Gv', '0F B3 /r', { lock: true, flags: f.BIT_TEST }),
  row('BTC', 'Ev,Gv', '0F BB /r', { lock: true, flags: f.BIT_TEST }),
  row('BT', 'Ev,Ib', '0F BA /4', { flags: f.BIT_TEST }),
  row('BTS', 'Ev,Ib', '0F BA /5', { lock: true, flags: f.BIT_TEST }),
  row('BTR', 'Ev,Ib', '0F BA /6', { lock: true, flags: f.BIT_TEST }),
  row('BTC', 'Ev,Ib', '0F BA /7', { lock: true, flags: f.BIT_TEST }),
]

/** F3 selects TZCNT and LZCNT where they exist, and is ignored where they do not. */
const SCANS = [
  row('BSF', 'Gv,Ev', '0F BC /r', { flags: f.BIT_SCAN }),
  row('BSR', 'Gv,Ev', '0F BD /r', { flags: f.BIT_SCAN }),
  row('TZCNT', 'Gv,Ev', 'F3 0F BC /r', { cpuid: 'bmi1', flags: f.flags('', 'OSZAPC', 'OSAP') }),
  row('LZCNT', 'Gv,Ev', 'F3 0F BD /r', { cpuid: 'lzcnt', flags: f.flags('', 'OSZAPC', 'OSAP') }),
  row('POPCNT', 'Gv,Ev', 'F3 0F B8 /r', { cpuid: 'popcnt', flags: f.flags('', 'OSZAPC') }),
]

const CHECKSUM = [
  row('CRC32', 'Gy,Eb', 'F2 0F 38 F0 /r', { cpuid: 'sse4.2' }),
  row('CRC32', 'Gy,Ev', 'F2 0F 38 F1 /r', { cpuid: 'sse4.2' }),
]

export const bit: readonly RowSource[] = [...SHIFT_GROUP, ...DOUBLE_SHIFTS, ...BIT_TESTS, ...SCANS, ...CHECKSUM]
