/** WebAssembly bytes at run time. Knows the binary format, nothing of x86. */
export { Bytes } from './bytes.ts'
export { ModuleBuilder, TYPE, type BranchHint, type MemoryImport, type ValueType } from './module.ts'
