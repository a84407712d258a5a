/** Saving and restoring extended state: FXSAVE, XSAVE and their kin. (SDM Vol. 1, "Managing State Using the XSAVE Feature Set".) */
import { family, row, type RowSource } from './row.ts'

/** REX.W selects the format with 64-bit instruction and data pointers: `FXSAVE64`. */
const wide = (name: string) => ({ names: `${name} ${name} ${name}64` })

export const state: readonly RowSource[] = [
  ...family({ unit: 'fxsr', cpuid: 'fxsr' }, [
    row('FXSAVE', 'Mfx', 'NP 0F AE /0', wide('FXSAVE')),
    row('FXRSTOR', 'Mfx', 'NP 0F AE /1', wide('FXRSTOR')),
  ]),
  ...family({ unit: 'xsave', cpuid: 'xsave' }, [
    row('XSAVE', 'Mstate', 'NP 0F AE /4', wide('XSAVE')),
    row('XRSTOR', 'Mstate', 'NP 0F AE /5', wide('XRSTOR')),
    row('XSAVEOPT', 'Mstate', 'NP 0F AE /6', { ...wide('XSAVEOPT'), cpuid: 'xsaveopt' }),
    row('XSAVEC', 'Mstate', 'NP 0F C7 /4', { ...wide('XSAVEC'), cpuid: 'xsavec' }),
    row('XSAVES', 'Mstate', 'NP 0F C7 /5', {
      ...wide('XSAVES'),
      cpuid: 'xsaves',
      cpl: 0,
      enabledBy: 'enableXsaves',
      exit: { reason: 'xsaves', when: 'xssExitingBitmap' },
    }),
    row('XRSTORS', 'Mstate', 'NP 0F C7 /3', {
      ...wide('XRSTORS'),
      cpuid: 'xsaves',
      cpl: 0,
      enabledBy: 'enableXsaves',
      exit: { reason: 'xrstors', when: 'xssExitingBitmap' },
    }),
    row('XGETBV', '', 'NP 0F 01 D0'),
    row('XSETBV', '', 'NP 0F 01 D1', { cpl: 0, flow: 'serialise', exit: { reason: 'xsetbv', when: 'always' } }),
  ]),
]
