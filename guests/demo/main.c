/* The demo guest: looks at the machine it is in, exercises it, says what leaving the guest costs, and ends with a status. */
#include "demo.h"

void main(uint32_t magic, uint32_t info) {
  print("\nnonroot demo guest: a machine looks at itself\n");
  show_processor();
  show_memory(magic, info);
  show_tables();
  show_pci();
  if (free_memory) {
    init_interrupts();
    test_faults();
    test_paging();
    test_timers();
    measure();
    show_costs();
  }
  print("\n%u checks, %u failed\n", (uint64_t)checks, (uint64_t)failures);
  end(failures > 254 ? 254 : failures);
}
