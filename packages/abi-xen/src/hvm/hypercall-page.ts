/** The hypercall page: entry points that kernels call. (Xen, "public/arch-x86/cpuid.h", leaf 2) */

const ENTRIES = 128
const ENTRY_BYTES = 32
const IRET = 23
const UNDEFINED_OPCODE = [0x0f, 0x0b]

/** Entry `n` makes hypercall `n` and returns. There is no return from a bounce here. */
export function hypercallPage(): Uint8Array {
  const page = new Uint8Array(ENTRIES * ENTRY_BYTES)
  for (let number = 0; number < ENTRIES; number++) {
    // mov eax, number; vmcall; ret
    const code = number === IRET ? UNDEFINED_OPCODE : [0xb8, number, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xc3]
    page.set(code, number * ENTRY_BYTES)
  }
  return page
}
