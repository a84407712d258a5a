/* Interrupt table, faults that are handled, and page tables: demand paging, aliases, protection, accessed and dirty bits. */
#include "demo.h"

enum { PRESENT = 1, WRITABLE = 2, ACCESSED = 0x20, DIRTY = 0x40 };
#define ADDRESS 0x000FFFFFFFFFF000ull
#define WINDOW 0x7000000000ull /* 448 GiB: nothing is mapped there at start */

volatile uint64_t interrupt_counts[256], demand_faults, demand_start, demand_end;
static volatile uint64_t last_error, last_address;
static uint64_t next_frame;

/* A probe: an exception of this vector goes on at the landing, with the stack it had. */
static volatile unsigned expected = 256;
static void *landing[5];

struct gate {
  uint16_t offset_low, selector;
  uint8_t stack, type;
  uint16_t offset_middle;
  uint32_t offset_high, reserved;
};
static struct gate gates[256];

static uint64_t new_frame(void) {
  uint64_t frame = next_frame;
  next_frame += 4096;
  uint64_t *words = (uint64_t *)frame;
  for (int i = 0; i < 512; i++) words[i] = 0;
  return frame;
}

extern uint64_t pml4[];

static uint64_t *entry_of(uint64_t virtual) {
  uint64_t *table = pml4;
  for (int shift = 39; shift > 12; shift -= 9) {
    uint64_t *entry = &table[virtual >> shift & 511];
    if (!(*entry & PRESENT)) *entry = new_frame() | PRESENT | WRITABLE;
    table = (uint64_t *)(*entry & ADDRESS);
  }
  return &table[virtual >> 12 & 511];
}

void map_page(uint64_t virtual, uint64_t physical, uint64_t flags) { *entry_of(virtual) = physical | flags; }

void unmap_page(uint64_t virtual) {
  *entry_of(virtual) = 0;
  invlpg(virtual);
}

static void acknowledge(uint64_t vector) {
  if (vector >= 0x20 && vector < 0x30) outb(0x20, 0x20);                   /* 8259 */
  else if (vector == 0x40) *(volatile uint32_t *)(0xFEE000B0) = 0;         /* local APIC */
}

void interrupt(struct frame *frame) {
  interrupt_counts[frame->vector & 255]++;
  if (frame->vector >= 32) {
    acknowledge(frame->vector);
    return;
  }
  if (frame->vector == 14) {
    last_error = frame->error;
    last_address = read_cr2();
    if (last_address >= demand_start && last_address < demand_end) {
      map_page(last_address & ~4095ull, new_frame(), PRESENT | WRITABLE);
      demand_faults++;
      return;
    }
  }
  if (frame->vector == 3) return; /* INT3 is a trap: it goes on by itself */
  if (frame->vector == expected) {
    expected = 256;
    /* As __builtin_longjmp would: here, so that no handler frame stays behind. */
    __builtin_longjmp(landing, 1);
  }
  print("\nunexpected exception %u, error %x, at %x, address %x\n", frame->vector, frame->error, frame->rip, read_cr2());
  end(255);
}

__attribute__((noinline)) bool faults(unsigned vector, void (*action)(void)) {
  if (__builtin_setjmp(landing)) return true;
  expected = vector;
  action();
  expected = 256;
  return false;
}

void init_interrupts(void) {
  extern char stubs[];
  for (uint64_t vector = 0; vector < 256; vector++) {
    uint64_t at = (uint64_t)stubs + 16 * vector;
    gates[vector] = (struct gate){(uint16_t)at, 8, 0, 0x8E, (uint16_t)(at >> 16), (uint32_t)(at >> 32), 0};
  }
  struct __attribute__((packed)) {
    uint16_t limit;
    uint64_t base;
  } pointer = {sizeof gates - 1, (uint64_t)gates};
  __asm__ volatile("lidt %0" ::"m"(pointer));
  next_frame = free_memory;
}

static void divide(void) { __asm__ volatile("xorl %%ecx, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx"); }
static void undefined(void) { __asm__ volatile("ud2"); }
static void non_canonical(void) { __asm__ volatile("movb (%0), %%al" ::"r"(0x8000000000000000ull) : "rax"); }
static void unknown_msr(void) { __asm__ volatile("rdmsr" ::"c"(0x12345678) : "rax", "rdx"); }
static void unmapped(void) { __asm__ volatile("movb (%0), %%al" ::"r"(WINDOW) : "rax"); }
static void read_only(void) { __asm__ volatile("movb $1, (%0)" ::"r"(WINDOW + 0x1000)); }
static void bad_selector(void) { __asm__ volatile("movw %w0, %%fs" ::"r"(0x100)); }

void test_faults(void) {
  heading("Faults");
  static const struct {
    const char *name;
    unsigned vector;
    void (*action)(void);
  } probes[] = {
      {"#DE division by zero", 0, divide},        {"#UD undefined opcode", 6, undefined},  {"#GP non-canonical address", 13, non_canonical},
      {"#GP unknown MSR", 13, unknown_msr},       {"#GP selector beyond the GDT", 13, bad_selector}, {"#PF not present", 14, unmapped},
  };
  for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
    bool caught = faults(probes[i].vector, probes[i].action);
    print("  %-28s %s\n", probes[i].name, caught ? "handled" : "did not happen");
    if (probes[i].action != unknown_msr) check(caught, probes[i].name); /* some machines ignore unknown MSRs, by choice */
  }
  check(last_address == WINDOW && last_error == 0, "CR2 and error code of a read from a page not present");
  uint64_t before = interrupt_counts[3];
  __asm__ volatile("int3");
  check(interrupt_counts[3] == before + 1, "#BP breakpoint");
}

void test_paging(void) {
  heading("Paging");
  uint64_t frame = new_frame(), other = new_frame();
  volatile uint64_t *first = (volatile uint64_t *)(WINDOW + 0x2000), *second = (volatile uint64_t *)(WINDOW + 0x3000);

  map_page((uint64_t)first, frame, PRESENT | WRITABLE);
  map_page((uint64_t)second, frame, PRESENT | WRITABLE);
  check(!(*entry_of((uint64_t)first) & (ACCESSED | DIRTY)), "accessed and dirty clear in a fresh entry");
  check(*first == 0, "fresh frame is zero");
  check((*entry_of((uint64_t)first) & (ACCESSED | DIRTY)) == ACCESSED, "a read sets accessed alone");
  *first = 0x600D600D;
  check((*entry_of((uint64_t)first) & DIRTY) == DIRTY, "a write sets dirty");
  check(*second == 0x600D600D, "two pages of one frame show the same");

  *(volatile uint64_t *)other = 0xCAFE;
  map_page((uint64_t)second, other, PRESENT | WRITABLE);
  invlpg((uint64_t)second);
  check(*second == 0xCAFE && *first == 0x600D600D, "a remapped page shows its new frame after INVLPG");

  map_page(WINDOW + 0x1000, frame, PRESENT);
  check(*(volatile uint64_t *)(WINDOW + 0x1000) == 0x600D600D, "a read-only page can be read");
  check(faults(14, read_only), "a write to a read-only page faults");
  check(last_error == 3, "its error code says: protection, write");

  unmap_page((uint64_t)first);
  unmap_page((uint64_t)second);
  print("  aliases, remapping, protection, accessed and dirty bits: %u checks so far, %u failed\n", (uint64_t)checks, (uint64_t)failures);
}
