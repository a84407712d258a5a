/* What the demo guest's parts share. Each part is one concept; main.c calls them in order. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* console.c: COM1, text */
void print(const char *format, ...); /* %s %c %d %u %x (all 64-bit), %0Nx, %Nu, %-Ns */
void heading(const char *text);
void check(bool holds, const char *what); /* one self-test: a line only where it fails */
extern unsigned checks, failures;
_Noreturn void end(unsigned status);

/* machine.c: what is there */
void show_processor(void);
void show_memory(uint32_t magic, uint32_t info);
void show_tables(void);
void show_pci(void);
extern uint64_t free_memory; /* start of a few megabytes that nothing uses */

/* paging.c: interrupts, faults, page tables */
struct frame {
  uint64_t vector, error, rip, cs, rflags, rsp, ss;
};
void init_interrupts(void);
void test_faults(void);
void test_paging(void);
void map_page(uint64_t virtual, uint64_t physical, uint64_t flags);
void unmap_page(uint64_t virtual);
bool faults(unsigned vector, void (*action)(void)); /* whether the action ends in that exception */
extern volatile uint64_t interrupt_counts[256], demand_faults;
extern volatile uint64_t demand_start, demand_end; /* pages in here come on demand */

/* timers.c */
void test_timers(void);
extern uint64_t tsc_khz; /* 0: unknown */

/* exits.c */
void measure(void);
void show_costs(void);

/* instructions */
static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
static inline uint8_t inb(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint32_t inl(uint16_t port) {
  uint32_t value;
  __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint64_t rdtsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
  return low | (uint64_t)high << 32;
}
struct cpuid {
  uint32_t a, b, c, d;
};
static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
  struct cpuid r;
  __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
  return r;
}
static inline uint64_t rdmsr(uint32_t index) {
  uint32_t low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
  return low | (uint64_t)high << 32;
}
static inline uint64_t read_cr2(void) {
  uint64_t value;
  __asm__ volatile("movq %%cr2, %0" : "=r"(value));
  return value;
}
static inline uint64_t read_cr3(void) {
  uint64_t value;
  __asm__ volatile("movq %%cr3, %0" : "=r"(value));
  return value;
}
static inline void write_cr3(uint64_t value) { __asm__ volatile("movq %0, %%cr3" ::"r"(value) : "memory"); }
static inline void invlpg(uint64_t address) { __asm__ volatile("invlpg (%0)" ::"r"(address) : "memory"); }
static inline void pause(void) { __asm__ volatile("pause"); }
