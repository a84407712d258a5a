/* What the guest finds: processor, hypervisor, memory map, ACPI tables, PCI functions. Only looks. */
#include "demo.h"

uint64_t free_memory;
static uint64_t root_pointer; /* of ACPI, where the loader named it */

static void put_registers(char *into, const uint32_t *registers, int count) {
  for (int i = 0; i < count; i++)
    for (int byte = 0; byte < 4; byte++) *into++ = (char)(registers[i] >> (8 * byte));
  *into = 0;
}

void show_processor(void) {
  heading("Processor");
  char text[49];
  struct cpuid r = cpuid(0, 0);
  uint32_t leaves = r.a;
  put_registers(text, (uint32_t[]){r.b, r.d, r.c}, 3);
  print("  vendor      %s, leaves to %x\n", text, (uint64_t)leaves);
  struct cpuid extended = cpuid(0x80000000, 0);
  if (extended.a >= 0x80000004) {
    for (uint32_t i = 0; i < 3; i++) {
      r = cpuid(0x80000002 + i, 0);
      put_registers(text + 16 * i, (uint32_t[]){r.a, r.b, r.c, r.d}, 4);
    }
    const char *brand = text;
    while (*brand == ' ') brand++;
    print("  brand       %s\n", brand);
  }
  r = cpuid(1, 0);
  uint32_t family = ((r.a >> 8) & 15) + ((r.a >> 20) & 255), model = ((r.a >> 4) & 15) | ((r.a >> 12) & 0xF0);
  print("  signature   family %u, model %u, stepping %u\n", (uint64_t)family, (uint64_t)model, (uint64_t)(r.a & 15));
  static const struct {
    const char *name;
    uint8_t in_c, bit;
  } features[] = {{"sse2", 0, 26},   {"sse4.2", 1, 20}, {"popcnt", 1, 23}, {"aes", 1, 25},     {"avx", 1, 28},
                  {"rdrand", 1, 30}, {"x2apic", 1, 21}, {"tsc-deadline", 1, 24}, {"vmx", 1, 5}};
  print("  features   ");
  for (size_t i = 0; i < sizeof features / sizeof *features; i++)
    if ((features[i].in_c ? r.c : r.d) >> features[i].bit & 1) print(" %s", features[i].name);
  print("\n");
  if (r.c >> 31) {
    struct cpuid h = cpuid(0x40000000, 0);
    put_registers(text, (uint32_t[]){h.b, h.c, h.d}, 3);
    print("  hypervisor  %s, leaves to %x\n", text[0] ? text : "(no name)", (uint64_t)h.a);
  } else {
    print("  hypervisor  says it is none\n");
  }
}

static void show_range(uint64_t start, uint64_t length, uint32_t type) {
  static const char *const types[] = {"?", "RAM", "reserved", "ACPI tables", "ACPI NVS", "unusable"};
  print("  %012x..%012x  %8u KiB  %s\n", start, start + length, length / 1024, types[type < 6 ? type : 0]);
  extern char image_end[];
  /* The megabytes after ours, if they are RAM: for page tables and frames of the tests. */
  uint64_t wanted = ((uint64_t)image_end + 0x1FFFFF) & ~0x1FFFFFull;
  if (type == 1 && wanted >= start && wanted + 0x400000 <= start + length) free_memory = wanted;
}

void show_memory(uint32_t magic, uint32_t info) {
  const uint32_t *words = (const uint32_t *)(uint64_t)info;
  if (magic == 0x2BADB002) {
    heading("Memory (from Multiboot)");
    if (!(words[0] & 0x40)) return;
    for (uint64_t at = words[12]; at < words[12] + (uint64_t)words[11];) {
      const uint32_t *entry = (const uint32_t *)at;
      show_range(entry[1] | (uint64_t)entry[2] << 32, entry[3] | (uint64_t)entry[4] << 32, entry[5]);
      at += entry[0] + 4;
    }
  } else if (words[0] == 0x336EC578) {
    heading("Memory (from PVH)");
    root_pointer = *(const uint64_t *)(words + 8);
    uint64_t at = *(const uint64_t *)(words + 10);
    for (uint32_t i = 0; words[1] >= 1 && i < words[12]; i++, at += 24)
      show_range(*(const uint64_t *)at, *(const uint64_t *)(at + 8), *(const uint32_t *)(at + 16));
  }
  check(free_memory != 0, "memory map with free RAM");
}

static bool sums_to_zero(uint64_t at, uint32_t length) {
  uint8_t sum = 0;
  for (uint32_t i = 0; i < length; i++) sum += ((const uint8_t *)at)[i];
  return sum == 0;
}

void show_tables(void) {
  for (uint64_t at = 0xE0000; !root_pointer && at < 0x100000; at += 16)
    if (*(const uint64_t *)at == 0x2052545020445352 && sums_to_zero(at, 20)) root_pointer = at; /* "RSD PTR " */
  if (!root_pointer) return;
  heading("ACPI tables");
  bool wide = ((const uint8_t *)root_pointer)[15] >= 2;
  uint64_t root = wide ? *(const uint64_t *)(root_pointer + 24) : *(const uint32_t *)(root_pointer + 16);
  uint32_t length = *(const uint32_t *)(root + 4), size = wide ? 8 : 4;
  check(sums_to_zero(root, length), "checksum of the root table");
  print(" ");
  for (uint32_t at = 36; at + size <= length; at += size) {
    uint64_t table = wide ? *(const uint64_t *)(root + at) : *(const uint32_t *)(root + at);
    const char *name = (const char *)table;
    print(" %c%c%c%c", name[0], name[1], name[2], name[3]);
    check(sums_to_zero(table, *(const uint32_t *)(table + 4)), "checksum of a table");
  }
  print("\n");
}

static uint32_t pci_read(uint32_t device, uint32_t offset) {
  outl(0xCF8, 0x80000000 | device << 11 | offset);
  return inl(0xCFC);
}

void show_pci(void) {
  outl(0xCF8, 0x80000000);
  if (inl(0xCF8) != 0x80000000) return; /* no configuration mechanism 1 */
  heading("PCI bus 0");
  for (uint32_t device = 0; device < 32; device++) {
    uint32_t id = pci_read(device, 0);
    if ((id & 0xFFFF) == 0xFFFF) continue;
    print("  %02x.0  %04x:%04x  class %06x\n", (uint64_t)device, (uint64_t)(id & 0xFFFF), (uint64_t)(id >> 16),
          (uint64_t)(pci_read(device, 8) >> 8));
  }
}
