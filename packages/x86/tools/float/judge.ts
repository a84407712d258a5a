/** Runs records through the library and compares with the processor's answers. */
import { compileFloat, createFloatLibrary, type FloatLibrary } from '../../src/float/library.ts'
import { S } from '../../src/state/layout.ts'
import { type Call, type Instruction, instructions } from './instructions.ts'
import { type Batch, RECORD_WORDS, WORD } from './record.ts'

export interface Judge {
  readonly library: FloatLibrary
  readonly memory: WebAssembly.Memory
  readonly cpu: number
  readonly counts: Map<string, { cases: number; differences: number; off: Map<string, number> }>
  total: number
  differences: number
  compare(cases: Batch, answers: Batch): void
  notes(): string[]
}

const CPU = 0x10000
const FPR = (CPU + S.fpr) >> 2
const XMM = (CPU + S.xmm) >> 2
const FAULTED = 0xff

const keyOf = (code: readonly number[]): string => code.join(' ')
const byCode = new Map<string, Instruction>(instructions.map((instruction) => [keyOf(instruction.code), instruction]))

export function judge(show: number): Judge {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 65536, shared: true })
  const library = createFloatLibrary(compileFloat(), memory)
  const words = new Uint32Array(memory.buffer)
  const longs = new BigInt64Array(memory.buffer)
  const state = new Uint32Array(RECORD_WORDS) // the library's answer, laid out as the processor's
  const stateBytes = new Uint8Array(state.buffer)
  const stateLongs = new BigInt64Array(state.buffer)
  const memoryBytes = new Uint8Array(memory.buffer)
  let loaded = false

  const call: Call = {
    cpu: CPU,
    library,
    // FCOMI leaves its flags in `value` too: after the call this reads the slot.
    word: () => (loaded ? (state[WORD.memory] as number) : (words[(CPU + S.value) >> 2] as number)),
    long: () => stateLongs[WORD.memory >> 1] as bigint,
    high: () => (state[WORD.memory + 2] as number) & 0xffff,
    rcx: () => stateLongs[WORD.rcx >> 1] as bigint,
    setMemory: (bytes) => {
      for (let index = 0; index < bytes; index++)
        stateBytes[WORD.memory * 4 + index] = memoryBytes[CPU + S.value + index] as number
    },
    setRcx: (value, bits) => {
      if (!words[(CPU + S.floatException) >> 2])
        stateLongs[WORD.rcx >> 1] = bits === 64 ? value : BigInt.asUintN(32, value)
    },
    setFlags: (flags) => {
      state[WORD.eflags] = flags
    },
    xmm32: (register, lane) => words[XMM + register * 4 + lane] as number,
    xmm64: (register, lane) => longs[((CPU + S.xmm) >> 3) + register * 2 + lane] as bigint,
    setXmm32: (value) => {
      if (!words[(CPU + S.floatException) >> 2]) words[XMM] = value
    },
    setXmm64: (value) => {
      if (!words[(CPU + S.floatException) >> 2]) longs[(CPU + S.xmm) >> 3] = value
    },
    setMemoryWord: (index, value) => {
      state[WORD.memory + index] = value
    },
    slot: (offset) => words[(CPU + offset) >> 2] as number,
    setSlot: (offset, value) => {
      words[(CPU + offset) >> 2] = value
    },
    clearUpper: () => {
      words[XMM + 2] = words[XMM + 3] = 0
    },
  }

  /** Puts a record's state into the block, runs the call, and collects the answer in `state`. */
  const run = (cases: Batch, base: number, instruction: Instruction): void => {
    state.set(cases.words.subarray(base, base + RECORD_WORDS))
    const status = (state[WORD.control] as number) >>> 16
    const top = (status >> 11) & 7
    words[(CPU + S.fpuControl) >> 2] = (state[WORD.control] as number) & 0xffff
    words[(CPU + S.fpuStatus) >> 2] = status
    words[(CPU + S.fpuTag) >> 2] = state[WORD.tag] as number
    words[(CPU + S.mxcsr) >> 2] = state[WORD.mxcsr] as number
    words[(CPU + S.floatException) >> 2] = 0
    words[(CPU + S.value) >> 2] = 0
    for (let index = 0; index < 8; index++) {
      const register = FPR + ((top + index) & 7) * 4
      for (let word = 0; word < 3; word++) words[register + word] = state[WORD.st + index * 4 + word] as number
    }
    for (let word = 0; word < 8; word++) words[XMM + word] = state[WORD.xmm0 + word] as number
    loaded = !instruction.name.includes('comi') || instruction.unit === 'sse'
    instruction.run(call)
    const newStatus = words[(CPU + S.fpuStatus) >> 2] as number
    const newTop = (newStatus >> 11) & 7
    state[WORD.control] = (words[(CPU + S.fpuControl) >> 2] as number) | (newStatus << 16)
    state[WORD.tag] = words[(CPU + S.fpuTag) >> 2] as number
    state[WORD.mxcsr] = words[(CPU + S.mxcsr) >> 2] as number
    for (let index = 0; index < 8; index++) {
      const register = FPR + ((newTop + index) & 7) * 4
      for (let word = 0; word < 3; word++) state[WORD.st + index * 4 + word] = words[register + word] as number
    }
    for (let word = 0; word < 8; word++) state[WORD.xmm0 + word] = words[XMM + word] as number
    if (words[(CPU + S.floatException) >> 2]) stateBytes[7] = FAULTED
  }

  /** A register's place in the order of all numbers, one unit in the last place from its neighbours; the sign apart. */
  const place = (words: Uint32Array, at: number): bigint => {
    const exponent = (words[at + 2] as number) & 0x7fff
    const significand = (BigInt(words[at + 1] as number) << 32n) | BigInt(words[at] as number)
    return exponent ? (BigInt(exponent) << 63n) + BigInt.asUintN(63, significand) : significand
  }

  /** Whether two registers are exactly a unit in the last place apart. */
  const isUnitApart = (answers: Batch, base: number, at: number): boolean => {
    const theirs = answers.words
    const same = [0, 1, 2].every((word) => state[at + word] === theirs[base + at + word])
    if (same || ((state[at + 2] as number) ^ (theirs[base + at + 2] as number)) & 0x8000) return false
    const distance = place(state, at) - place(theirs, base + at)
    return distance === 1n || distance === -1n
  }

  /** RCPPS, RSQRTPS: both results are within 1.5 * 2^-12 of the truth, so within twice that of one another. */
  const settleReciprocals = (answers: Batch, base: number): void => {
    const ours = new Float32Array(state.buffer)
    const theirs = new Float32Array(answers.buffer)
    for (let word: number = WORD.xmm0; word < WORD.xmm1; word++) {
      const left = ours[word] as number
      const right = theirs[base + word] as number
      if (left && Number.isFinite(left) && Math.abs(left - right) <= Math.abs(left) * 3 * 2 ** -12)
        state[word] = answers.words[base + word] as number
    }
  }

  /** Lets the results of an approximate instruction be those of the processor if they are a unit away at most. */
  const settle = (instruction: Instruction, answers: Batch, base: number, off: Map<string, number>): void => {
    if (instruction.unit === 'sse') {
      settleReciprocals(answers, base)
      return
    }
    let differ = false
    for (const at of [WORD.st, WORD.st + 4]) {
      if (!isUnitApart(answers, base, at)) continue
      differ = true
      for (let word = at; word < at + 3; word++) state[word] = answers.words[base + word] as number
    }
    if (differ) off.set('a unit', (off.get('a unit') ?? 0) + 1)
    const codes = ((state[WORD.control] as number) ^ (answers.words[base + WORD.control] as number)) & 0x02000000
    if (codes) {
      off.set('C1', (off.get('C1') ?? 0) + 1)
      state[WORD.control] = (state[WORD.control] as number) ^ codes
    }
  }

  const differs = (instruction: Instruction, answers: Batch, base: number): boolean => {
    if (stateBytes[7] !== answers.bytes[base * 4 + 7]) return true
    // After a fault only MXCSR and the destination mean anything.
    const faulted = stateBytes[7] === FAULTED
    for (let word: number = WORD.control; word < RECORD_WORDS; word++) {
      if (faulted && word !== WORD.mxcsr && (word < WORD.xmm0 || word >= WORD.st)) continue
      if (instruction.ignores === word) continue
      if (state[word] !== answers.words[base + word]) return true
    }
    return false
  }

  /** A state in full for `reference` undefined, else only the words in which it differs from the reference. */
  const describe = (record: Uint32Array, base: number, reference?: Uint32Array, at = 0): string => {
    const fields: [name: string, first: number, count: number][] = [
      ['fsw:fcw', WORD.control, 1],
      ['tag', WORD.tag, 1],
      ['mxcsr', WORD.mxcsr, 1],
      ['eflags', WORD.eflags, 1],
      ['rcx', WORD.rcx, 2],
      ['memory', WORD.memory, 3],
      ['xmm0', WORD.xmm0, 4],
      ['xmm1', WORD.xmm1, 4],
    ]
    for (let index = 0; index < 8; index++) fields.push([`st${index}`, WORD.st + index * 4, 3])
    const text = (from: Uint32Array, offset: number, first: number, count: number): string => {
      let result = ''
      for (let word = count - 1; word >= 0; word--)
        result += `${((from[offset + first + word] as number) >>> 0).toString(16).padStart(8, '0')}${word ? '_' : ''}`
      return result
    }
    return fields
      .filter(
        ([, first, count]) => !reference || text(record, base, first, count) !== text(reference, at, first, count),
      )
      .map(([name, first, count]) => `${name} ${text(record, base, first, count)}`)
      .join('  ')
  }

  const verdict: Judge = {
    library,
    memory,
    cpu: CPU,
    counts: new Map(),
    total: 0,
    differences: 0,
    compare(cases, answers) {
      for (let index = 0; index < cases.count; index++) {
        const base = index * RECORD_WORDS
        const length = cases.bytes[base * 4 + 7] as number
        const instruction = byCode.get(keyOf([...cases.bytes.subarray(base * 4, base * 4 + length)]))
        if (!instruction) throw new Error(`record ${index} holds no instruction of the table`)
        run(cases, base, instruction)
        verdict.total++
        let count = verdict.counts.get(instruction.name)
        if (!count) verdict.counts.set(instruction.name, (count = { cases: 0, differences: 0, off: new Map() }))
        count.cases++
        if (instruction.approximate) settle(instruction, answers, base, count.off)
        if (!differs(instruction, answers, base)) continue
        count.differences++
        verdict.differences++
        if (count.differences > show) continue
        const faulted = (flag: number | undefined): string => (flag === FAULTED ? 'FAULT ' : '')
        console.log(`${instruction.name}\n  state    ${describe(cases.words, base)}`)
        console.log(`  expected ${faulted(answers.bytes[base * 4 + 7])}${describe(answers.words, base, state)}`)
        console.log(`  got      ${faulted(stateBytes[7])}${describe(state, 0, answers.words, base)}`)
      }
    },
    notes: () =>
      [...verdict.counts]
        .filter(([, { off }]) => off.size)
        .map(
          ([name, { cases, off }]) =>
            `${name}: of ${cases}, ${[...off].map(([what, times]) => `${what} ${times}`).join(', ')}`,
        ),
  }
  return verdict
}
