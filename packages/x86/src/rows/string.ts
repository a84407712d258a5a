/** String instructions, with and without REP. (SDM Vol. 1, "String Operations".) */
import * as f from './flags.ts'
import { row, type RowSource } from './row.ts'

const move = { rep: 'string', flags: f.flags('D', '') } as const
const compare = { rep: 'stringCompare', flags: f.flags('D', 'OSZAPC') } as const
/** Exit qualification: a string instruction; the direction of INS. */
const STRING = 0x10
const IN = 8
const io = (direction: number) => ({
  ...move,
  exit: { reason: 'ioInstruction', when: 'ioControls', qualification: STRING | direction },
})

export const string: readonly RowSource[] = [
  row('MOVS', 'Yb,Xb', 'A4', move),
  row('MOVS', 'Yv,Xv', 'A5', move),
  row('CMPS', 'Xb,Yb', 'A6', compare),
  row('CMPS', 'Xv,Yv', 'A7', compare),
  row('STOS', 'Yb,AL', 'AA', move),
  row('STOS', 'Yv,rAX', 'AB', move),
  row('LODS', 'AL,Xb', 'AC', move),
  row('LODS', 'rAX,Xv', 'AD', move),
  row('SCAS', 'AL,Yb', 'AE', compare),
  row('SCAS', 'rAX,Yv', 'AF', compare),
  // Port I/O stops at 32 bits: REX.W changes nothing.
  row('INS', 'Yb,DX', '6C', io(IN)),
  row('INS', 'Yz,DX', '6D', io(IN)),
  row('OUTS', 'DX,Xb', '6E', io(0)),
  row('OUTS', 'DX,Xz', '6F', io(0)),
]
