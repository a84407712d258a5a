/* A kernel that looks for whatever else may be in its address space: a monitor, its tables, its cache of translated code. All that it has not mapped
 * itself must fault as on a machine that has nothing there, and every instruction that shows an address must show the kernel's own. */
#include "../demo/demo.h"

enum { PRESENT = 1, WRITABLE = 2, LARGE = 0x80, DEBUG = 1, BREAKPOINT = 3, UNDEFINED = 6, PROTECTION = 13, PAGE_FAULT = 14 };
#define ADDRESS 0x000FFFFFFFFFF000ull
#define SLOT (1ull << 39)
#define GIB (1ull << 30)
/* Holes of Linux's address space, where a monitor would hide. */
#define HOLE 0xFFFF800100000000ull

extern uint64_t pml4[];
static uint64_t attempts, next_frame = 16 << 20, hash = 0xCBF29CE484222325ull;

static void note(uint64_t value) {
  for (int n = 0; n < 8; n++) hash = (hash ^ (value >> n * 8 & 255)) * 0x100000001B3ull;
}
static void attempt(bool refused, const char *what, uint64_t address) {
  attempts++;
  if (refused) return;
  failures++;
  if (failures < 20) print("  NOT REFUSED: %s at %016x\n", what, address);
}

/* --- faults --- */

/* An exception goes on at the landing with the stack it had. */
static volatile uint64_t landing, landing_stack;
static volatile uint64_t vector, error, address, at;
static volatile uint64_t traps;

void interrupt(struct frame *frame) {
  vector = frame->vector;
  error = frame->error;
  address = frame->vector == PAGE_FAULT ? read_cr2() : 0;
  at = frame->rip;
  traps++;
  if (frame->vector == BREAKPOINT || frame->vector >= 32) return;
  if (frame->vector == DEBUG) {
    frame->rflags &= ~0x100ull;
    return;
  }
  if (!landing) {
    print("\nunexpected exception %u, error %x, at %x, address %x\n", frame->vector, frame->error, frame->rip, read_cr2());
    end(255);
  }
  frame->rip = landing;
  frame->rsp = landing_stack;
  landing = 0;
}

static struct __attribute__((packed)) {
  uint16_t offset_low, selector;
  uint8_t stack, type;
  uint16_t offset_middle;
  uint32_t offset_high, reserved;
} gates[256];
struct __attribute__((packed)) pointer {
  uint16_t limit;
  uint64_t base;
};

static void init_gates(void) {
  extern char stubs[];
  for (uint64_t n = 0; n < 256; n++) {
    uint64_t stub = (uint64_t)stubs + 16 * n;
    gates[n].offset_low = (uint16_t)stub;
    gates[n].selector = 8;
    gates[n].type = 0x8E;
    gates[n].offset_middle = (uint16_t)(stub >> 16);
    gates[n].offset_high = (uint32_t)(stub >> 32);
  }
  struct pointer pointer = {sizeof gates - 1, (uint64_t)gates};
  __asm__ volatile("lidt %0" ::"m"(pointer));
}

/* Instructions that end at the landing behind them, by a fault or without. The address is in RDI. */
#define TRY(instructions, to)                                                                                      \
  do {                                                                                                             \
    uint64_t rdi = (to), rcx = 0;                                                                                  \
    vector = 256;                                                                                                  \
    __asm__ volatile("leaq 9f(%%rip), %%rax; movq %%rax, landing; movq %%rsp, landing_stack;" instructions " 9:"   \
                     : "+D"(rdi), "+c"(rcx)::"rax", "rdx", "rsi", "memory", "cc");                                 \
    landing = 0;                                                                                                   \
    value = rdi;                                                                                                   \
    left = rcx;                                                                                                    \
    note(vector);                                                                                                  \
    note(error);                                                                                                   \
    note(address);                                                                                                 \
  } while (0)
static uint64_t value, left;

static bool faulted(uint64_t where, uint64_t code) { return vector == PAGE_FAULT && address == where && error == code; }

static void reads(uint64_t where) {
  TRY("movq (%%rdi), %%rax;", where);
  attempt(faulted(where, 0), "a read", where);
}
static void writes(uint64_t where) {
  TRY("movq $-1, (%%rdi);", where);
  attempt(faulted(where, 2), "a write", where);
}
static void calls(uint64_t where) {
  TRY("call *%%rdi;", where);
  attempt(faulted(where, 0) && at == where, "a call", where);
}
static void enters(uint64_t where) {
  TRY("jmp *%%rdi;", where);
  attempt(faulted(where, 0) && at == where, "a jump", where);
  TRY("pushq %%rdi; ret;", where);
  attempt(faulted(where, 0) && at == where, "a return", where);
  TRY("pushq $8; pushq %%rdi; lretq;", where);
  attempt(faulted(where, 0) && at == where, "a far return", where);
  TRY("movq %%rsp, %%rax; pushq $16; pushq %%rax; pushq $2; pushq $8; pushq %%rdi; iretq;", where);
  attempt(faulted(where, 0) && at == where, "an interrupt return", where);
  TRY("lock incq (%%rdi);", where);
  attempt(faulted(where, 2), "a locked write", where);
  TRY("invlpg (%%rdi);", where);
  attempt(vector == 256, "INVLPG", where);
}

/* --- page tables --- */

static uint64_t new_frame(void) {
  uint64_t frame = next_frame;
  next_frame += 4096;
  for (int n = 0; n < 512; n++) ((uint64_t *)frame)[n] = 0;
  return frame;
}
static uint64_t *entry_of(uint64_t virtual, int level) {
  uint64_t *table = pml4;
  for (int shift = 39; shift > level; shift -= 9) {
    uint64_t *entry = &table[virtual >> shift & 511];
    if (!(*entry & PRESENT)) *entry = new_frame() | PRESENT | WRITABLE;
    table = (uint64_t *)(*entry & ADDRESS);
  }
  return &table[virtual >> level & 511];
}
static void map(uint64_t virtual, uint64_t entry) {
  *entry_of(virtual, 12) = entry;
  invlpg(virtual);
}

/* --- what is tried --- */

static void holes(void) {
  static const uint64_t offsets[] = {0, GIB, 4 * GIB, 4 * GIB + 1, 4 * GIB + 0x40, 4 * GIB + 0xFFFF8, 4 * GIB + 0x7FFFF8, 4 * GIB + 0x3FFFFF8, 256 * GIB, SLOT - 8};
  for (uint64_t slot = 1; slot < 512; slot++) {
    uint64_t base = slot * SLOT | (slot < 256 ? 0 : 0xFFFF000000000000ull);
    for (size_t n = 0; n < sizeof offsets / sizeof *offsets; n++) {
      reads(base + offsets[n]);
      writes(base + offsets[n]);
      calls(base + offsets[n]);
    }
  }
  for (uint64_t n = 4; n < 512; n++) reads(n * GIB);
  print("  holes of the root table: %u attempts so far\n", attempts);
}

static void hiding_place(void) {
  for (uint64_t place = HOLE; place < HOLE + 3 * SLOT; place += SLOT) {
    /* Again and again: once found, it may be elsewhere. */
    for (uint64_t page = 0; page < 8 << 20; page += 4096) reads(place + page);
    for (uint64_t page = 0; page < 8 << 20; page += 65536) {
      writes(place + page);
      calls(place + page + 0x40);
      enters(place + page);
    }
  }
  for (uint64_t slot = 256; slot < 511; slot++) attempt(pml4[slot] == 0, "an entry of the root table", slot);
  print("  where a monitor might hide: %u attempts so far\n", attempts);
}

static void own_memory(void) {
  uint64_t frame = new_frame(), below = new_frame();
  for (int n = 0; n < 8; n++) {
    uint64_t place = HOLE + SLOT * n;
    map(place, frame | PRESENT | WRITABLE);
    map(place - 4096, below | PRESENT | WRITABLE);
    volatile uint8_t *code = (volatile uint8_t *)place;
    /* lea rdi, [rip + 0]; ret */
    static const uint8_t bytes[] = {0x48, 0x8D, 0x3D, 0, 0, 0, 0, 0xC3};
    for (size_t i = 0; i < sizeof bytes; i++) code[i] = bytes[i];
    attempt(*(volatile uint64_t *)frame == *(volatile uint64_t *)place, "memory of its own", place);
    TRY("call *%%rdi;", place);
    attempt(vector == 256 && value == place + 7, "code of its own", place);
    map(place, 0);
    reads(place);
    calls(place);
    /* From its own page into the hole: 4096 bytes are stored, and the rest is left. */
    TRY("movl $8192, %%ecx; movb $0xCC, %%al; rep stosb;", place - 4096);
    attempt(faulted(place, 2) && value == place && left == 4096, "a string store", place);
    *entry_of(place, 21) = LARGE | PRESENT | WRITABLE;
    invlpg(place);
    attempt(*(volatile uint64_t *)(place + (1 << 20)) == *(volatile uint64_t *)(1 << 20), "a large page of its own", place);
    *entry_of(place, 21) = 0;
    invlpg(place);
    reads(place + (1 << 20));
    pml4[place >> 39 & 511] = 0;
    write_cr3(read_cr3());
  }
  print("  memory of its own there: %u attempts so far\n", attempts);
}

/* Physical addresses behind the end of memory: the host's own memory goes on there, if anything leads to it. */
static void physical(void) {
  uint64_t window = 2 * SLOT;
  for (int bit = 27; bit < 39; bit++)
    for (uint64_t page = 0; page < 4; page++) {
      uint64_t frame = (1ull << bit) + page * 0x105000;
      if (frame >= 0xC0000000ull && frame < 4 * GIB) continue;
      map(window, frame | PRESENT | WRITABLE);
      TRY("movq (%%rdi), %%rdi;", window);
      attempt(vector == 256 && value == ~0ull, "physical memory", frame);
      TRY("movq $0x1234, (%%rdi); movq (%%rdi), %%rdi;", window);
      attempt(vector == 256 && value == ~0ull, "a write to physical memory", frame);
    }
  uint32_t bits = cpuid(0x80000008, 0).a & 255;
  for (uint32_t bit = bits; bit < 52; bit++) {
    map(window, 1ull << bit | PRESENT | WRITABLE);
    TRY("movq (%%rdi), %%rdi;", window);
    attempt(faulted(window, 9), "a reserved bit of an entry", bit);
  }
  map(window, 0);
  /* The root table as a table of pages: it shows itself, and what the processor marks there. */
  pml4[3] = (uint64_t)pml4 | PRESENT | WRITABLE;
  volatile uint64_t *self = (volatile uint64_t *)(3 * SLOT | 3 * GIB | 3ull << 21 | 3 << 12);
  for (int n = 0; n < 512; n++) attempt((self[n] & ~0x60ull) == (pml4[n] & ~0x60ull), "its own root table", (uint64_t)&self[n]);
  pml4[3] = 0;
  write_cr3(read_cr3());
  print("  physical memory and tables: %u attempts so far\n", attempts);
}

#define SHOWS(instructions, what)                                                                                   \
  do {                                                                                                              \
    uint64_t shown, here;                                                                                           \
    __asm__ volatile(instructions "; 8: leaq 8b(%%rip), %1" : "=&a"(shown), "=&r"(here)::"rcx", "rdx", "r11", "memory", "cc"); \
    attempt(shown == here, what, shown);                                                                            \
  } while (0)

static void own_addresses(void) {
  SHOWS("leaq (%%rip), %%rax", "the address of LEA");
  SHOWS("call 7f; 7: popq %%rax; addq $5, %%rax", "the return address of CALL");
  SHOWS("leaq 7f(%%rip), %%rcx; call *%%rcx; 7: popq %%rax; addq $5, %%rax", "the return address of CALL by register");
  SHOWS("int3; movq at, %%rax; addq $12, %%rax", "the return address of INT3");
  SHOWS("pushfq; orl $0x100, (%%rsp); popfq; nop; movq at, %%rax; addq $12, %%rax", "the return address of a single step");
  SHOWS("int $0x50; movq at, %%rax; addq $12, %%rax", "the return address of INT");
  uint32_t environment[7], here;
  __asm__ volatile("fninit; 8: fld1; fnstenv %0; leal 8b(%%rip), %1" : "=m"(environment), "=r"(here));
  attempt(environment[3] == here, "the instruction pointer of the x87 FPU", environment[3]);
  /* SYSCALL from the kernel, to the instruction behind it. */
  uint64_t saved, target;
  __asm__ volatile("movl $0xC0000080, %%ecx; rdmsr; orl $1, %%eax; wrmsr;"
                   "movl $0xC0000081, %%ecx; xorl %%eax, %%eax; movl $8, %%edx; wrmsr;"
                   "movl $0xC0000084, %%ecx; xorl %%eax, %%eax; xorl %%edx, %%edx; wrmsr;"
                   "leaq 8f(%%rip), %%rax; movq %%rax, %%rdx; shrq $32, %%rdx; movl $0xC0000082, %%ecx; wrmsr;"
                   "syscall; 8: movq %%rcx, %0; leaq 8b(%%rip), %1"
                   : "=&S"(saved), "=&D"(target)::"rax", "rcx", "rdx", "r11", "memory", "cc");
  attempt(saved == target, "the return address of SYSCALL", saved);
  TRY("8: ud2; ", 0);
  attempt(vector == UNDEFINED && at >= 0x100000 && at < 0x200000, "the address of an undefined instruction", at);
}

static void own_registers(void) {
  struct pointer gdt, idt;
  uint64_t cs, ss, tr, ldtr, word, flags;
  __asm__ volatile("sgdt %0; sidt %1" : "=m"(gdt), "=m"(idt));
  attempt(gdt.limit == 23 && gdt.base >= 0x100000 && gdt.base < 0x200000, "the base of the GDT", gdt.base);
  attempt(idt.limit == sizeof gates - 1 && idt.base == (uint64_t)gates, "the base of the IDT", idt.base);
  __asm__ volatile("movq %%cs, %0; movq %%ss, %1; strq %2; sldtq %3; smswq %4" : "=r"(cs), "=r"(ss), "=r"(tr), "=r"(ldtr), "=r"(word));
  attempt(cs == 8 && ss == 16, "selectors of code and stack", cs << 16 | ss);
  attempt(tr == 0 && ldtr == 0, "selectors of task and local table", tr << 16 | ldtr);
  attempt((uint32_t)word == 0x80010011 || (uint32_t)word == 0x80010031, "the machine status word", word);
  __asm__ volatile("pushfq; orl $0x3000, (%%rsp); popfq; pushfq; popq %0; pushq $2; popfq" : "=r"(flags)::"cc", "memory");
  attempt((flags & 0x3000) == 0x3000, "IOPL", flags);
  attempt(rdmsr(0x174) == 0, "SYSENTER_CS", rdmsr(0x174));
  attempt((rdmsr(0xC0000080) & ~1ull) == 0x500, "EFER", rdmsr(0xC0000080));
  TRY("movl $0x480, %%ecx; rdmsr;", 0);
  attempt(vector == PROTECTION, "IA32_VMX_BASIC", 0x480);
  TRY("vmxoff;", 0);
  attempt(vector == UNDEFINED, "VMXOFF", 0);
  /* A breakpoint on code where a monitor might have it: no debug exception comes of it. */
  __asm__ volatile("movq %0, %%dr0; movq %1, %%dr7" ::"r"(HOLE + 6 * SLOT), "r"(0x402ull));
  uint64_t before = traps;
  for (volatile int n = 0; n < 100; n++) {}
  __asm__ volatile("movq %0, %%dr7" ::"r"(0x400ull));
  attempt(traps == before, "a breakpoint", HOLE + 6 * SLOT);
  print("  addresses and registers: %u attempts so far\n", attempts);
}

void main(void) {
  print("\nnonroot hostile guest: a kernel looks for a monitor\n");
  init_gates();
  holes();
  hiding_place();
  own_memory();
  physical();
  own_addresses();
  own_registers();
  print("%u attempts, %u not refused, exceptions %016x\n", attempts, (uint64_t)failures, hash);
  end(failures > 254 ? 254 : failures);
}
