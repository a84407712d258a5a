/* Timers: the PIT as the yardstick, TSC and local APIC timer measured by it, ticks of both counted. */
#include "demo.h"

enum { PIT_HZ = 1193182, PIT_0 = 0x40, PIT_2 = 0x42, PIT_COMMAND = 0x43, GATE = 0x61 };
enum { APIC_SPURIOUS = 0xF0, APIC_LINT0 = 0x350, APIC_LVT_TIMER = 0x320, APIC_INITIAL = 0x380, APIC_CURRENT = 0x390, APIC_DIVIDE = 0x3E0 };
enum { PIT_VECTOR = 0x20, APIC_VECTOR = 0x40, SPURIOUS_VECTOR = 0xFF };
enum { PERIODIC = 0x20000, MASKED = 0x10000, EXTERNAL = 0x700 };
#define PATIENCE 3000000 /* polls of a port before a timer counts as absent */

uint64_t tsc_khz;

static volatile uint32_t *apic(uint32_t offset) { return (volatile uint32_t *)(uint64_t)(0xFEE00000 + offset); }

/* Channel 2 counts down once while the gate is open; its output shows in port 0x61. */
static bool wait_pit(unsigned counts) {
  outb(GATE, (inb(GATE) & ~3) | 0);
  outb(PIT_COMMAND, 0xB0); /* channel 2, both bytes, mode 0 */
  outb(PIT_2, counts & 255);
  outb(PIT_2, (uint8_t)(counts >> 8));
  outb(GATE, (inb(GATE) & ~2) | 1);
  if (inb(GATE) & 0x20) return false; /* mode 0 starts low: nothing is there */
  for (int polls = 0; polls < PATIENCE; polls++)
    if (inb(GATE) & 0x20) return true;
  return false;
}

static bool has_apic(void) { return cpuid(1, 0).d >> 9 & 1 && rdmsr(0x1B) >> 11 & 1; }

static void start_pic(void) {
  static const uint8_t words[][2] = {{0x20, 0x11}, {0xA0, 0x11}, {0x21, PIT_VECTOR}, {0xA1, PIT_VECTOR + 8},
                                     {0x21, 4},    {0xA1, 2},    {0x21, 1},          {0xA1, 1},
                                     {0x21, 0xFE}, {0xA1, 0xFF}}; /* IRQ 0 alone is open */
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) outb(words[i][0], words[i][1]);
}

/* Ticks until `wanted` have come: first awake, then asleep in HLT. */
static uint64_t count_ticks(unsigned vector, uint64_t wanted) {
  uint64_t start = interrupt_counts[vector];
  __asm__ volatile("sti");
  for (int polls = 0; polls < PATIENCE && interrupt_counts[vector] - start < wanted / 2; polls++) {
    pause();
    inb(0x61); /* keeps an exit in the loop, so that a machine which polls its timers on exits shows them */
  }
  if (interrupt_counts[vector] != start)
    while (interrupt_counts[vector] - start < wanted) __asm__ volatile("sti; hlt");
  __asm__ volatile("cli");
  return interrupt_counts[vector] - start;
}

void test_timers(void) {
  heading("Timers");
  const unsigned counts = PIT_HZ / 200; /* 5 ms */
  bool with_apic = has_apic();
  if (with_apic) {
    *apic(APIC_SPURIOUS) = 0x100 | SPURIOUS_VECTOR;
    *apic(APIC_LINT0) = EXTERNAL; /* the 8259's interrupts come through here; firmware, where there is one, has done it */
    *apic(APIC_DIVIDE) = 0xB; /* by 1 */
    *apic(APIC_LVT_TIMER) = MASKED | APIC_VECTOR;
    *apic(APIC_INITIAL) = 0xFFFFFFFF;
  }
  uint64_t tsc, ticks = ~0ull, apic_ticks = 0;
  /* The shortest of some: a busy host may be away when the PIT is done. */
  for (int tries = 0; tries < 4; tries++) {
    uint32_t current = with_apic ? *apic(APIC_CURRENT) : 0;
    tsc = rdtsc();
    bool has_pit = wait_pit(counts);
    uint64_t took = rdtsc() - tsc, apic_took = with_apic ? current - *apic(APIC_CURRENT) : 0;
    if (!has_pit) {
      check(false, "PIT channel 2 reaches its end");
      return;
    }
    if (took >= ticks) continue;
    ticks = took;
    apic_ticks = apic_took;
  }
  check(ticks != ~0ull, "PIT channel 2 reaches its end");
  tsc_khz = ticks * PIT_HZ / counts / 1000;
  uint64_t apic_khz = apic_ticks * PIT_HZ / counts / 1000;
  check(tsc_khz > 0, "TSC moves");
  print("  TSC         %u.%03u MHz (by the PIT, over 5 ms)\n", tsc_khz / 1000, tsc_khz % 1000);

  start_pic();
  outb(PIT_COMMAND, 0x34); /* channel 0, both bytes, mode 2: 1000 Hz */
  outb(PIT_0, (PIT_HZ / 1000) & 255);
  outb(PIT_0, (PIT_HZ / 1000) >> 8);
  tsc = rdtsc();
  uint64_t count = count_ticks(PIT_VECTOR, 8);
  outb(0x21, 0xFF);
  print("  PIT         %u interrupts at 1000 Hz in %u us\n", count, (rdtsc() - tsc) * 1000 / tsc_khz);
  check(count >= 8, "PIT interrupts arrive through the 8259, awake and in HLT");

  if (!with_apic) return;
  print("  APIC timer  %u.%03u MHz", apic_khz / 1000, apic_khz % 1000);
  check(apic_khz > 0, "APIC timer moves");
  if (!apic_khz) return;
  *apic(APIC_LVT_TIMER) = PERIODIC | APIC_VECTOR;
  *apic(APIC_INITIAL) = (uint32_t)(apic_khz > 4294967295 ? 4294967295 : apic_khz); /* 1000 Hz */
  tsc = rdtsc();
  count = count_ticks(APIC_VECTOR, 8);
  *apic(APIC_LVT_TIMER) = MASKED | APIC_VECTOR;
  *apic(APIC_INITIAL) = 0;
  print(", %u interrupts at 1000 Hz in %u us\n", count, (rdtsc() - tsc) * 1000 / tsc_khz);
  check(count >= 8, "APIC timer interrupts arrive, awake and in HLT");
}
