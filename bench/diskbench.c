/* Disk transfers inside a guest: with O_DIRECT random 4 KiB with many requests in flight and sequential 1 MiB one after the other, and sequential reads
 * through the guest's page cache, which is emptied before each pass. Times nothing: what
 * it prints is timed from outside. All tests run once unheard before: machines that translate code have translated it then. The first word of each sector says which sector it is and who wrote it; sums of those words are checked.
 *
 *   diskbench DEVICE SIZE-IN-MIB RANDOM-REQUESTS PASSES
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECTOR 512
#define BLOCK 4096
#define MIB (1 << 20)
#define DEPTH 16

static const uint64_t SPREAD = 0x9e3779b97f4a7c15u;
static int disk, cached;
static uint64_t blocks;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t sum(const char *bytes, size_t length) {
  uint64_t total = 0;
  for (size_t at = 0; at < length; at += SECTOR) total += *(const uint64_t *)(bytes + at);
  return total;
}

/* As the host wrote it, plus one: who looks at the image afterwards sees that it was written. */
static void mark(char *bytes, size_t length, uint64_t sector) {
  for (size_t at = 0; at < length; at += SECTOR) *(uint64_t *)(bytes + at) = sector++ * SPREAD + 1;
}

/* Without a name: nobody listens. */
static void begin(const char *name) {
  if (name) printf("BENCH %s begin\n", name);
}
static void end(const char *name, uint64_t bytes, uint64_t check) {
  if (name) printf("BENCH %s end %llu %llx\n", name, (unsigned long long)bytes, (unsigned long long)check);
}

/* Each block once at most: a step that has no divisor in common with their number. */
static uint64_t block_of(uint64_t request) { return request * 40503 % blocks; }

static void random_blocks(const char *name, int write, long requests) {
  aio_context_t context = 0;
  struct iocb controls[DEPTH], *wanted[DEPTH];
  struct io_event events[DEPTH];
  char *buffers;
  if (posix_memalign((void **)&buffers, BLOCK, DEPTH * BLOCK)) fail("memory");
  memset(buffers, 0x5a, DEPTH * BLOCK);
  if (syscall(SYS_io_setup, DEPTH, &context)) fail("io_setup");
  memset(controls, 0, sizeof controls);
  uint64_t check = 0;
  long next = 0, over = 0;
  int free_slots[DEPTH], free_count = DEPTH;
  for (int slot = 0; slot < DEPTH; slot++) free_slots[slot] = slot;
  begin(name);
  while (over < requests) {
    int count = 0;
    while (free_count > 0 && next < requests) {
      int slot = free_slots[--free_count];
      struct iocb *control = &controls[slot];
      uint64_t block = block_of(next++);
      control->aio_fildes = disk;
      control->aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
      control->aio_buf = (uintptr_t)(buffers + slot * BLOCK);
      control->aio_nbytes = BLOCK;
      control->aio_offset = block * BLOCK;
      control->aio_data = slot;
      if (write) {
        mark(buffers + slot * BLOCK, BLOCK, block * (BLOCK / SECTOR));
        check += sum(buffers + slot * BLOCK, BLOCK);
      }
      wanted[count++] = control;
    }
    for (int done = 0; done < count;) {
      long submitted = syscall(SYS_io_submit, context, count - done, wanted + done);
      if (submitted <= 0) fail("io_submit");
      done += submitted;
    }
    long got = syscall(SYS_io_getevents, context, 1, DEPTH, events, NULL);
    if (got <= 0) fail("io_getevents");
    for (long index = 0; index < got; index++) {
      int slot = events[index].data;
      if (events[index].res != BLOCK) fail("transfer");
      if (!write) check += sum(buffers + slot * BLOCK, BLOCK);
      free_slots[free_count++] = slot;
      over++;
    }
  }
  end(name, (uint64_t)requests * BLOCK, check);
  syscall(SYS_io_destroy, context);
  free(buffers);
}

static void sequential(const char *name, int disk, int write, int passes) {
  char *buffer;
  if (posix_memalign((void **)&buffer, MIB, MIB)) fail("memory");
  memset(buffer, 0xa5, MIB);
  uint64_t check = 0, bytes = 0;
  begin(name);
  for (int pass = 0; pass < passes; pass++) {
    if (disk == cached && posix_fadvise(disk, 0, 0, POSIX_FADV_DONTNEED)) fail("posix_fadvise");
    for (uint64_t at = 0; at < blocks * BLOCK; at += MIB) {
      if (write) mark(buffer, MIB, at / SECTOR);
      if ((write ? pwrite : (ssize_t(*)(int, const void *, size_t, off_t))pread)(disk, buffer, MIB, at) != MIB) fail("transfer");
      check += sum(buffer, MIB);
      bytes += MIB;
    }
  }
  end(name, bytes, check);
  free(buffer);
}

int main(int count, char **words) {
  if (count != 5) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  disk = open(words[1], O_RDWR | O_DIRECT);
  cached = open(words[1], O_RDONLY);
  if (disk < 0 || cached < 0) fail(words[1]);
  blocks = strtoull(words[2], NULL, 10) * (MIB / BLOCK);
  long requests = atol(words[3]);
  int passes = atoi(words[4]);
  for (int round = 0; round < 2; round++) {
    int heard = round == 1;
    /* The image is written in the second round only: what was read is compared with what the host wrote. */
    random_blocks(heard ? "random-read" : NULL, 0, requests);
    sequential(heard ? "sequential-read" : NULL, disk, 0, passes);
    sequential(heard ? "cached-read" : NULL, cached, 0, passes);
    if (!heard) continue;
    random_blocks(NULL, 1, requests);
    random_blocks("random-write", 1, requests);
    sequential(NULL, disk, 1, passes);
    sequential("sequential-write", disk, 1, passes);
  }
  printf("BENCH all done\n");
  return 0;
}
