/*
 * Runs single x87 and SSE instructions on the host's own processor: records of initial state in, records of final state out.
 * Knows no instruction: each record brings its own bytes, with memory operands at [rax] and integer operands in rcx.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

/* tools/float/record.ts knows this layout too. */
typedef struct {
  uint8_t code[7], length; /* out: length is 0xff if the instruction faulted */
  uint16_t fcw, fsw;
  uint8_t ftw, pad[3];
  uint32_t mxcsr, eflags;
  uint64_t rcx;
  uint8_t memory[16], xmm0[16], xmm1[16], st[8][16];
} Record;

typedef struct {
  uint16_t fcw, fsw;
  uint8_t ftw, pad;
  uint16_t fop;
  uint64_t fip, fdp;
  uint32_t mxcsr, mxcsr_mask;
  uint8_t st[8][16], xmm[16][16], rest[96];
} __attribute__((aligned(16))) Image;

#define SLOTS 65536
static uint64_t keys[SLOTS];
static uint8_t *code; /* 16 bytes a slot */
static sigjmp_buf escape;
static Image in, out;

static void onSignal(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  memcpy(&out, ((ucontext_t *)context)->uc_mcontext.fpregs, 512);
  siglongjmp(escape, 1);
}

/* The instruction followed by a RET, written once. */
static uint8_t *stubOf(const Record *record) {
  uint64_t key;
  memcpy(&key, record->code, 8);
  uint32_t slot = (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 48);
  while (keys[slot] != key) {
    if (!keys[slot]) {
      keys[slot] = key;
      memcpy(code + slot * 16, record->code, record->length);
      code[slot * 16 + record->length] = 0xc3;
      break;
    }
    slot = (slot + 1) % SLOTS;
  }
  return code + slot * 16;
}

static void run(Record *record) {
  static volatile uint64_t rcx, flags;
  uint8_t *stub = stubOf(record);
  in.fcw = record->fcw, in.fsw = record->fsw, in.ftw = record->ftw, in.mxcsr = record->mxcsr;
  memcpy(in.st, record->st, sizeof in.st);
  memcpy(in.xmm[0], record->xmm0, 16), memcpy(in.xmm[1], record->xmm1, 16);
  rcx = record->rcx, flags = 0;
  if (sigsetjmp(escape, 0)) record->length = 0xff;
  else {
    uint64_t c = rcx, f;
    __asm__ volatile("fxrstor64 %[in]\n pushq $0x202\n popfq\n call *%[stub]\n pushfq\n popq %[f]\n fxsave64 %[out]\n fninit"
                     : [f] "=&r"(f), "+c"(c), [out] "=m"(out)
                     : [in] "m"(in), [stub] "r"(stub), "a"(record->memory)
                     : "memory", "cc", "xmm0", "xmm1");
    rcx = c, flags = f;
  }
  static const uint32_t usual = 0x1f80;
  __asm__ volatile("ldmxcsr %0" ::"m"(usual));
  record->fcw = out.fcw, record->fsw = out.fsw, record->ftw = out.ftw, record->mxcsr = out.mxcsr;
  record->eflags = flags & 0x8d5, record->rcx = rcx;
  memcpy(record->st, out.st, sizeof out.st);
  memcpy(record->xmm0, out.xmm[0], 16), memcpy(record->xmm1, out.xmm[1], 16);
}

int main(void) {
  code = mmap(0, SLOTS * 16, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 2;
  struct sigaction action = {.sa_sigaction = onSignal, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGFPE, &action, 0), sigaction(SIGILL, &action, 0), sigaction(SIGSEGV, &action, 0);
  __asm__ volatile("fxsave64 %0" : "=m"(in));
  static Record batch[1024];
  for (size_t count; (count = fread(batch, sizeof *batch, 1024, stdin)) > 0;) {
    for (size_t index = 0; index < count; index++) run(&batch[index]);
    fwrite(batch, sizeof *batch, count, stdout);
  }
  return 0;
}
