/*
 * Runs single instructions on the host's own processor, in 64-bit or 32-bit user mode, from a file of cases and back into it. Knows no
 * instruction. tools/native/batch.ts knows the layout of the file too.
 *
 * usage: harness FILE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

/* Where code and data lie: below 4 GiB, far from everything else that the process has. */
#define CODE 0x48000000ul
#define CODE_SIZE 0x9000ul
#define SLOT 64
#define CODE_64 0x33 /* Linux's selectors */
#define CODE_32 0x23
#define NO_32_BIT_CODE 4 /* exit status: the kernel has no such segment */
#define DATA_SEGMENT 0x2b
#define DATA 0x20000000ul
#define DATA_SIZE 0x2000ul
/* Of the data two pieces are given and taken: around the border of its two pages, and before the guard behind them. */
#define MIDDLE (DATA + 0x1000 - 128)
#define MIDDLE_SIZE 256
#define TAIL (DATA + DATA_SIZE - 64)
#define TAIL_SIZE 64

enum { USES_VECTORS = 1, USES_MEMORY = 2 };

typedef struct {
  uint32_t magic, instructions, each, code_size;
} Header;

typedef struct {
  uint8_t code[16];
  uint8_t length, flags;
  uint16_t slot;
  uint8_t pad[12];
} Instruction;

typedef struct {
  uint64_t gpr[16]; /* in the order of their encoding */
  uint64_t rflags;
  uint32_t vector, error; /* out: vector -1 = none */
  uint64_t cr2, rip;
  uint8_t memory[MIDDLE_SIZE + TAIL_SIZE];
  uint8_t fx[512];
  uint8_t pad[32];
} State;

_Static_assert(sizeof(State) == 1024, "batch.ts counts on it");

State *harness_in, *harness_out;
uint64_t harness_stack, harness_target, harness_flags_in, harness_vectors;
uint64_t harness_gpr[16];
/* Offset and selector for 32-bit code, selector 0 for 64-bit. */
struct __attribute__((packed)) {
  uint32_t offset;
  uint16_t selector;
} harness_far;
static const uint32_t usual_mxcsr = 0x1f80;
const uint32_t *const harness_mxcsr = &usual_mxcsr;
void harness_enter(void);
extern char harness_exit[], harness_done[], harness_far_jump[];

/* All registers are loaded from and saved to fixed places, so that the instruction may use every one of them. */
__asm__(
    ".text\n"
    ".globl harness_enter, harness_exit, harness_done, harness_far_jump\n"
    "harness_enter:\n"
    " push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, harness_stack(%rip)\n"
    " cmpq $0, harness_vectors(%rip)\n je 1f\n"
    " mov harness_in(%rip), %rax\n fxrstor64 480(%rax)\n"
    "1:\n"
    " pushq harness_flags_in(%rip)\n popfq\n"
    " mov 0+harness_gpr(%rip), %rax\n mov 8+harness_gpr(%rip), %rcx\n mov 16+harness_gpr(%rip), %rdx\n"
    " mov 24+harness_gpr(%rip), %rbx\n mov 32+harness_gpr(%rip), %rsp\n mov 40+harness_gpr(%rip), %rbp\n"
    " mov 48+harness_gpr(%rip), %rsi\n mov 56+harness_gpr(%rip), %rdi\n mov 64+harness_gpr(%rip), %r8\n"
    " mov 72+harness_gpr(%rip), %r9\n mov 80+harness_gpr(%rip), %r10\n mov 88+harness_gpr(%rip), %r11\n"
    " mov 96+harness_gpr(%rip), %r12\n mov 104+harness_gpr(%rip), %r13\n mov 112+harness_gpr(%rip), %r14\n"
    " mov 120+harness_gpr(%rip), %r15\n"
    " jmp *harness_target(%rip)\n"
    "harness_far_jump: ljmp *harness_far(%rip)\n"
    "harness_exit:\n"
    " mov %rax, 0+harness_gpr(%rip)\n mov %rcx, 8+harness_gpr(%rip)\n mov %rdx, 16+harness_gpr(%rip)\n"
    " mov %rbx, 24+harness_gpr(%rip)\n mov %rsp, 32+harness_gpr(%rip)\n mov %rbp, 40+harness_gpr(%rip)\n"
    " mov %rsi, 48+harness_gpr(%rip)\n mov %rdi, 56+harness_gpr(%rip)\n mov %r8, 64+harness_gpr(%rip)\n"
    " mov %r9, 72+harness_gpr(%rip)\n mov %r10, 80+harness_gpr(%rip)\n mov %r11, 88+harness_gpr(%rip)\n"
    " mov %r12, 96+harness_gpr(%rip)\n mov %r13, 104+harness_gpr(%rip)\n mov %r14, 112+harness_gpr(%rip)\n"
    " mov %r15, 120+harness_gpr(%rip)\n"
    " mov harness_stack(%rip), %rsp\n"
    " pushfq\n popq harness_flags_in(%rip)\n"
    " cmpq $0, harness_vectors(%rip)\n je harness_done\n"
    " mov harness_out(%rip), %rax\n fxsave64 480(%rax)\n"
    "harness_done:\n"
    " cld\n fninit\n mov harness_mxcsr(%rip), %rax\n ldmxcsr (%rax)\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");

static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  if (registers[REG_RIP] == (greg_t)harness_far_jump) _exit(NO_32_BIT_CODE);
  State *out = harness_out;
  for (int n = 0; n < 16; n++) harness_gpr[n] = registers[order[n]];
  harness_flags_in = registers[REG_EFL];
  out->rip = registers[REG_RIP];
  out->vector = registers[REG_TRAPNO];
  out->error = registers[REG_ERR];
  out->cr2 = registers[REG_CR2];
  if (out->vector == 3) out->rip--, out->vector = -1; /* a branch came to the filling */
  if (harness_vectors) memcpy(out->fx, ((ucontext_t *)context)->uc_mcontext.fpregs, 512);
  registers[REG_RIP] = (greg_t)harness_done;
  registers[REG_RSP] = harness_stack;
  registers[REG_EFL] = 0x202;
  registers[REG_CSGSFS] = (registers[REG_CSGSFS] & ~0xffffll) | CODE_64;
}

static void run(const Instruction *instruction, uint64_t target, State *in, State *out) {
  harness_in = in, harness_out = out;
  harness_target = harness_far.selector ? (uint64_t)harness_far_jump : target, harness_far.offset = target;
  harness_vectors = instruction->flags & USES_VECTORS;
  harness_flags_in = in->rflags;
  memcpy(harness_gpr, in->gpr, sizeof harness_gpr);
  if (instruction->flags & USES_MEMORY) {
    memset((void *)DATA, 0, DATA_SIZE);
    memcpy((void *)MIDDLE, in->memory, MIDDLE_SIZE);
    memcpy((void *)TAIL, in->memory + MIDDLE_SIZE, TAIL_SIZE);
  }
  out->vector = -1;
  out->error = 0, out->cr2 = 0;
  out->rip = target + instruction->length;
  harness_enter();
  memcpy(out->gpr, harness_gpr, sizeof harness_gpr);
  out->rflags = harness_flags_in;
  if (instruction->flags & USES_MEMORY) {
    memcpy(out->memory, (void *)MIDDLE, MIDDLE_SIZE);
    memcpy(out->memory + MIDDLE_SIZE, (void *)TAIL, TAIL_SIZE);
  }
}

static void *map(uint64_t at, size_t size, int protection) {
  void *got = mmap((void *)at, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
  if (got != (void *)at) perror("harness: mmap"), exit(2);
  return got;
}

/* 64-bit code: back to the harness, every register as it is. */
static void put_jump(uint8_t *at) {
  static const uint8_t jump[6] = {0xff, 0x25};
  const void *exit_address = harness_exit;
  memcpy(at, jump, 6), memcpy(at + 6, &exit_address, 8);
}

int main(int count, char **arguments) {
  if (count != 2) return fprintf(stderr, "usage: harness FILE\n"), 2;
  int file = open(arguments[1], O_RDWR);
  struct stat status;
  if (file < 0 || fstat(file, &status)) return perror(arguments[1]), 2;
  uint8_t *bytes = mmap(0, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
  if (bytes == MAP_FAILED) return perror("harness: mmap"), 2;
  const Header *header = (Header *)bytes;
  Instruction *instructions = (Instruction *)(header + 1);
  State *in = (State *)(bytes + 1024 * ((sizeof *header + header->instructions * sizeof *instructions + 1023) / 1024));
  State *out = in + (size_t)header->instructions * header->each;

  uint8_t *code = map(CODE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(DATA, DATA_SIZE, PROT_READ | PROT_WRITE);
  stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  sigaltstack(&stack, 0);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  for (const int *n = (int[]){SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, 0}; *n; n++) sigaction(*n, &action, 0);

  memset(code, 0xcc, CODE_SIZE);
  for (uint32_t n = 0; n < header->instructions; n++) {
    uint8_t *slot = code + instructions[n].slot * SLOT + SLOT / 2;
    memcpy(slot, instructions[n].code, instructions[n].length);
    slot += instructions[n].length;
    if (header->code_size == 64) put_jump(slot);
    else {
      uint8_t far[7] = {0xea, 0, 0, 0, 0, CODE_64, 0};
      uint32_t landing = CODE + CODE_SIZE - SLOT;
      memcpy(far + 1, &landing, 4), memcpy(slot, far, 7);
    }
  }
  put_jump(code + CODE_SIZE - SLOT);
  if (header->code_size == 32) {
    harness_far.selector = CODE_32;
    __asm__ volatile("mov %0, %%ds\n mov %0, %%es" ::"r"(DATA_SEGMENT));
  }
  mprotect(code, CODE_SIZE, PROT_READ | PROT_EXEC);
  for (uint32_t n = 0; n < header->instructions; n++)
    for (uint32_t m = 0; m < header->each; m++, in++, out++) run(&instructions[n], CODE + instructions[n].slot * SLOT + SLOT / 2, in, out);
  return 0;
}
