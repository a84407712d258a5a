/* What it costs to leave the guest, by reason, in TSC ticks and nanoseconds; and what must not leave it. */
#include "demo.h"

enum { ROUNDS = 1000, PAGES = 256, LOOP = 1000000 };
#define DEMAND 0x7100000000ull

struct cost {
  const char *what;
  uint64_t count, total, least;
};
static struct cost costs[16];
static unsigned measured;

static struct cost *begin(const char *what) {
  struct cost *cost = &costs[measured++];
  *cost = (struct cost){what, 0, 0, ~0ull};
  return cost;
}

static inline void add(struct cost *cost, uint64_t ticks) {
  cost->count++;
  cost->total += ticks;
  if (ticks < cost->least) cost->least = ticks;
}

/* Times ROUNDS runs of one instruction, each on its own. */
#define REPEAT(name, action)                    \
  do {                                          \
    struct cost *cost = begin(name);            \
    for (int round = 0; round < ROUNDS; round++) { \
      uint64_t before = rdtsc();                \
      action;                                   \
      add(cost, rdtsc() - before);              \
    }                                           \
  } while (0)

static void count_down(void) {
  uint64_t left = LOOP;
  __asm__ volatile("1: decq %0; jnz 1b" : "+r"(left));
}

void measure(void) {
  struct cost *loop = begin("(1 000 000 loops of 2 instructions)");
  uint64_t before = rdtsc();
  count_down();
  add(loop, rdtsc() - before);
  REPEAT("(nothing: RDTSC twice)", (void)0);
  REPEAT("CPUID", cpuid(0, 0));
  REPEAT("port write (0x80)", outb(0x80, 0));
  REPEAT("port read (UART line status)", inb(0x3FD));
  REPEAT("RDMSR (APIC base)", rdmsr(0x1B));
  REPEAT("MMIO read (APIC version)", (void)*(volatile uint32_t *)0xFEE00030);
  REPEAT("MOV to CR3", write_cr3(read_cr3()));
  REPEAT("INVLPG", invlpg(DEMAND));
  REPEAT("exception in the guest (#BP)", __asm__ volatile("int3"));

  struct cost *cost = begin("page fault, a page on demand");
  demand_start = DEMAND;
  demand_end = DEMAND + PAGES * 4096;
  for (uint64_t page = 0; page < PAGES; page++) {
    before = rdtsc();
    *(volatile uint64_t *)(DEMAND + page * 4096) = page;
    add(cost, rdtsc() - before);
  }
  check(demand_faults == PAGES, "each page of the demand-paged window faults once");
  bool right = true;
  for (uint64_t page = 0; page < PAGES; page++) right &= *(volatile uint64_t *)(DEMAND + page * 4096) == page;
  check(right && demand_faults == PAGES, "and holds what was written");
  demand_end = demand_start;

  cost = begin("remapping (entry, INVLPG, read)");
  for (uint64_t page = 0; page < PAGES; page++) {
    uint64_t to = DEMAND + (page * 7 % PAGES) * 4096;
    before = rdtsc();
    unmap_page(to);
    map_page(to, free_memory, 3);
    (void)*(volatile uint64_t *)to;
    add(cost, rdtsc() - before);
  }
}

void show_costs(void) {
  heading("Costs");
  print("  %-36s %8s %12s %12s %12s\n", "what", "count", "ticks, least", "ticks, mean", "ns, mean");
  for (unsigned i = 0; i < measured; i++) {
    struct cost *cost = &costs[i];
    uint64_t mean = cost->total / cost->count;
    print("  %-36s %8u %12u %12u %12u\n", cost->what, cost->count, cost->least, mean, tsc_khz ? mean * 1000000 / tsc_khz : 0);
  }
}
