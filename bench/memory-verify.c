/* Works with MIB mebibytes for SECONDS: fills them with numbers that no two pages, passes and seeds share, then compares. Usage: memory-verify MIB SECONDS SEED
   Prints passes and wrong words; the status is 1 if there was a wrong word. Static, so that a guest needs no package for it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static uint64_t next(uint64_t x) {
  x ^= x << 13;
  x ^= x >> 7;
  return x ^ x << 17;
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  size_t pages = strtoul(arguments[1], 0, 10) << 8, wrong = 0, passes = 0, seed = strtoul(arguments[3], 0, 10);
  time_t end = time(0) + strtol(arguments[2], 0, 10);
  uint64_t *memory = mmap(0, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 2;
  do {
    for (int check = 0; check < 2; check++)
      for (size_t page = 0; page < pages; page++) {
        uint64_t x = (seed << 48 | passes << 32 | page) * 0x9e3779b97f4a7c15 + 1;
        for (int word = 0; word < 512; word++) {
          x = next(x);
          if (!check) memory[page << 9 | word] = x;
          else if (memory[page << 9 | word] != x) wrong++;
        }
      }
    passes++;
  } while (time(0) < end);
  printf("%zu passes, %zu wrong\n", passes, wrong);
  return wrong != 0;
}
