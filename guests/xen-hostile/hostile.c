/* A paravirtual kernel that tries what no guest may: each attempt must be refused. Prints what was not. */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

struct start_info {
  char magic[32];
  u64 nr_pages, shared_info;
  u32 flags, pad0;
  u64 store_mfn;
  u32 store_evtchn, pad1;
  u64 console_mfn;
  u32 console_evtchn, pad2;
  u64 pt_base, nr_pt_frames, mfn_list;
};
struct trap { u8 vector, flags; u16 cs; u32 pad; u64 address; };
struct update { u64 ptr, val; };
struct extended { u32 cmd, pad; u64 arg1, arg2; };

extern long hypercall(u64 number, u64 a, u64 b, u64 c, u64 d);
extern int try_write(u64 address, u64 value), try_read(u64 address), try_in(u32 port), try_hlt(void), try_int(void), try_jump(u64 address);
extern int try_wrmsr(u32 index, u64 value), try_write_cr0(u64 value);
extern void fault_with_code(void), fault_plain(void);

#define BASE 0xffffffff80000000ul
#define SELF 0x7ff0
#define PAGE 4096ul
#define HYPERVISOR 0xffff800000000000ul
#define DESCRIPTORS 0xffff820000000000ul
enum { MMU_UPDATE = 1, SET_GDT = 2, PLATFORM = 7, UPDATE_DESCRIPTOR = 10, MEMORY = 12, MULTICALL = 13, UPDATE_VA = 14, CONSOLE = 18, GRANT = 20,
       VCPU = 24, MMUEXT = 26, SCHED = 29, EVENT = 32, SYSCTL = 35, DOMCTL = 36 };
enum { P = 1, RW = 2, US = 4, PSE = 0x80 };

static struct start_info *info;
static u64 *frames;
static int tried, gone_through;

static u64 length(const char *text) {
  u64 n = 0;
  while (text[n]) n++;
  return n;
}
static void print(const char *text) { hypercall(CONSOLE, 0, length(text), (u64)text, 0); }
static void number(int n) {
  char text[12], *at = text + 11;
  *at = 0;
  do *--at = '0' + n % 10; while (n /= 10);
  print(at);
}

static u64 mfn(u64 va) { return frames[(va - BASE) / PAGE]; }
static u64 machine(u64 va) { return mfn(va) * PAGE + va % PAGE; }
/* The table of a level for an address of the kernel's; the builder's are all mapped. */
static u64 table(u64 va, int level) {
  u64 at = info->pt_base;
  for (int l = 4; l > level; l--) {
    u64 entry = ((u64 *)at)[va >> (12 + 9 * (l - 1)) & 511];
    u64 found = 0;
    for (u64 n = 0; n < info->nr_pt_frames; n++)
      if (mfn(info->pt_base + n * PAGE) == (entry >> 12 & 0xfffffffffful)) found = info->pt_base + n * PAGE;
    at = found;
  }
  return at;
}
static long update(u64 ptr, u64 val) {
  struct update u = { ptr, val };
  return hypercall(MMU_UPDATE, (u64)&u, 1, 0, SELF);
}
static long extended(u32 cmd, u64 arg1, u64 arg2) {
  struct extended e = { cmd, 0, arg1, arg2 };
  return hypercall(MMUEXT, (u64)&e, 1, 0, SELF);
}

static void refused(const char *what, int was) {
  tried++;
  if (was) return;
  gone_through++;
  print("NOT REFUSED: ");
  print(what);
  print("\n");
}
#define CALL(what, call) refused(what, (call) < 0)
#define FAULT(what, attempt) refused(what, attempt)

static u8 spare[2 * PAGE] __attribute__((aligned(4096)));

static void tables(void) {
  u64 l1 = table((u64)spare, 1), l2 = table((u64)spare, 2), l4 = info->pt_base;
  u64 slot = machine(l1) + ((u64)spare >> 12 & 511) * 8;
  CALL("a page table mapped writable, by entry", update(slot, mfn(l1) * PAGE | P | RW | US));
  CALL("a page table mapped writable, by address", hypercall(UPDATE_VA, (u64)spare, mfn(l1) * PAGE | P | RW | US, 2, 0));
  CALL("the root mapped writable", hypercall(UPDATE_VA, (u64)spare, mfn(l4) * PAGE | P | RW | US, 2, 0));
  FAULT("a store to the root", try_write(l4, P | RW | US));
  FAULT("a store to a table of level 2", try_write(l2, P | RW | US));
  FAULT("a store to a table of level 1 that maps another table writable", try_write(l1, mfn(l4) * PAGE | P | RW | US));
  CALL("frame 0 of the machine", hypercall(UPDATE_VA, (u64)spare, P | RW | US, 2, 0));
  /* Whatever is not ours belongs to somebody else. */
  u64 theirs = 1;
  for (u64 n = 0; n < info->nr_pages; n++)
    if (frames[n] == theirs) { theirs++; n = -1ul; }
  CALL("a frame of somebody else's, writable", hypercall(UPDATE_VA, (u64)spare, theirs * PAGE | P | RW | US, 2, 0));
  CALL("a frame of somebody else's, to read", hypercall(UPDATE_VA, (u64)spare, theirs * PAGE | P | US, 2, 0));
  CALL("a frame beyond the machine", hypercall(UPDATE_VA, (u64)spare, 0xffffffffful * PAGE | P | US, 2, 0));
  CALL("a superpage", update(machine(l2) + 8 * 100, mfn((u64)spare) * PAGE | P | RW | US | PSE));
  CALL("an entry of the hypervisor's part", update(machine(l4) + 8 * 256, mfn(l2) * PAGE | P | RW | US));
  CALL("the root as its own table", update(machine(l4) + 8 * 300, mfn(l4) * PAGE | P | US));
  CALL("an entry that is not aligned", update(slot | 4, 0));
  CALL("a table of level 1 as a root", extended(5, mfn(l1), 0));
  CALL("a table of level 2 pinned as level 1", extended(0, mfn(l2), 0));
  CALL("the root pinned twice", extended(3, mfn(l4), 0));
  CALL("a page that was never pinned, unpinned", extended(4, mfn((u64)spare), 0));
  CALL("a table cleared", extended(16, mfn(l1), 0));
  CALL("a table copied over", extended(17, mfn(l1), mfn((u64)spare)));
  CALL("an update for another domain", hypercall(MMU_UPDATE, (u64)&(struct update){ slot, 0 }, 1, 0, 0));
  CALL("the map changed for a frame of somebody else's", update(theirs * PAGE | 1, 7));
}

static void memory(void) {
  FAULT("a write to the machine-to-physical map", try_write(HYPERVISOR + 8 * mfn((u64)spare), 7));
  FAULT("a read of the descriptor tables", try_read(DESCRIPTORS));
  FAULT("a write to the descriptor tables", try_write(DESCRIPTORS + 0xe030, 0));
  FAULT("a read elsewhere in the hypervisor's part", try_read(0xffff830000000000ul));
  FAULT("code run in the hypervisor's part", try_jump(DESCRIPTORS));
  u64 *l1 = (u64 *)table((u64)spare, 1);
  u64 gdt = mfn((u64)l1);
  CALL("a page table as descriptors", hypercall(SET_GDT, (u64)&gdt, 512, 0, 0));
  CALL("more descriptors than there is room for", hypercall(SET_GDT, (u64)&gdt, 8192, 0, 0));
  CALL("a descriptor written into a page table", hypercall(UPDATE_DESCRIPTOR, machine((u64)l1), 0x00cff3000000fffful, 0, 0));
  CALL("a task segment as descriptor", hypercall(UPDATE_DESCRIPTOR, machine((u64)spare), 0x000089000000fffful, 0, 0));
  CALL("a result written to the hypervisor's part", hypercall(17, 3, HYPERVISOR, 0, 0));
  CALL("a result written to a page table", hypercall(17, 3, (u64)l1, 0, 0));
  CALL("requests read from the hypervisor's descriptors", hypercall(MMU_UPDATE, DESCRIPTORS, 1, 0, SELF));
  struct { u64 start, count; u32 order, flags; u16 domain; } give = { (u64)&gdt, 1, 0, 0, 1234 };
  CALL("memory of another domain", hypercall(MEMORY, 6, (u64)&give, 0, 0));
  struct { u64 mfn; u32 offset, pad; } place = { mfn((u64)l1), 0, 0 };
  CALL("vcpu_info in a page table", hypercall(VCPU, 10, 0, (u64)&place, 0));
  place.mfn = mfn((u64)spare), place.offset = 4090;
  CALL("vcpu_info across the end of a page", hypercall(VCPU, 10, 0, (u64)&place, 0));
}

static void privilege(void) {
  FAULT("a port without leave", try_in(0x71));
  FAULT("EFER changed", try_wrmsr(0xc0000080, 0));
  FAULT("paging switched off", try_write_cr0(1));
  FAULT("HLT", try_hlt());
  FAULT("INT without a handler", try_int());
  CALL("a domain controlled", hypercall(DOMCTL, (u64)spare, 0, 0, 0));
  CALL("the system controlled", hypercall(SYSCTL, (u64)spare, 0, 0, 0));
  CALL("the platform controlled", hypercall(PLATFORM, (u64)spare, 0, 0, 0));
  CALL("a call that does not exist", hypercall(63, 0, 0, 0, 0));
  CALL("a call beyond all numbers", hypercall(-1ul, 0, 0, 0, 0));
  struct { u64 op, result, args[6]; } call = { MULTICALL, 0, { 0 } };
  hypercall(MULTICALL, (u64)&call, 1, 0, 0);
  CALL("a multicall in a multicall", (long)call.result);
  u32 port = 4095;
  CALL("an event to a port that is none", hypercall(EVENT, 4, (u64)&port, 0, 0));
  struct { u16 domain; u32 port, local; } bind = { 0, 1, 0 };
  CALL("a port of another domain", hypercall(EVENT, 0, (u64)&bind, 0, 0));
  struct { u64 ports; u32 count; u64 timeout; } poll = { (u64)&port, 1, 1 };
  CALL("a poll of a port that never was", hypercall(SCHED, 3, (u64)&poll, 0, 0));
}

void kernel(struct start_info *given) {
  info = given;
  frames = (u64 *)info->mfn_list;
  struct trap traps[] = {
    { 6, 0, 0xe033, 0, (u64)fault_plain }, { 13, 0, 0xe033, 0, (u64)fault_with_code }, { 14, 0, 0xe033, 0, (u64)fault_with_code }, { 0, 0, 0, 0, 0 },
  };
  hypercall(0, (u64)traps, 0, 0, 0);
  tables();
  memory();
  privilege();
  number(tried);
  print(" attempts, ");
  number(gone_through);
  print(" not refused\n");
  u32 reason = gone_through ? 3 : 0;
  hypercall(SCHED, 2, (u64)&reason, 0, 0);
}
