/** AES, carry-less multiplication and SHA on XMM registers. (SDM Vol. 1, "AESNI and PCLMULQDQ", "SHA Extensions".) */
import { alignedFamily, row, type RowSource } from './row.ts'

const aes = alignedFamily({ unit: 'sse', cpuid: 'aes' }, [
  row('AESIMC', 'Vx,Wx', '66 0F 38 DB /r'),
  row('AESENC', 'Vx,Wx', '66 0F 38 DC /r'),
  row('AESENCLAST', 'Vx,Wx', '66 0F 38 DD /r'),
  row('AESDEC', 'Vx,Wx', '66 0F 38 DE /r'),
  row('AESDECLAST', 'Vx,Wx', '66 0F 38 DF /r'),
  row('AESKEYGENASSIST', 'Vx,Wx,Ib', '66 0F 3A DF /r'),
  row('PCLMULQDQ', 'Vx,Wx,Ib', '66 0F 3A 44 /r', { cpuid: 'pclmulqdq' }),
])

const sha = alignedFamily({ unit: 'sse', cpuid: 'sha' }, [
  row('SHA1NEXTE', 'Vx,Wx', 'NP 0F 38 C8 /r'),
  row('SHA1MSG1', 'Vx,Wx', 'NP 0F 38 C9 /r'),
  row('SHA1MSG2', 'Vx,Wx', 'NP 0F 38 CA /r'),
  row('SHA256RNDS2', 'Vx,Wx,XMM0', 'NP 0F 38 CB /r'),
  row('SHA256MSG1', 'Vx,Wx', 'NP 0F 38 CC /r'),
  row('SHA256MSG2', 'Vx,Wx', 'NP 0F 38 CD /r'),
  row('SHA1RNDS4', 'Vx,Wx,Ib', 'NP 0F 3A CC /r'),
])

export const crypto: readonly RowSource[] = [...aes, ...sha]
