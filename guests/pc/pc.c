/*
 * What a guest without firmware finds of a PC: BIOS data area, MP table, RSDT, the RTC's flags, x87 errors as IRQ 13.
 * Prints a line for each; the status is how many are wrong.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

static void outb(u16 port, u8 value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static u8 inb(u16 port) { u8 value; asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u8 byte_at(u32 address) { return *(volatile u8 *)address; }
static u16 word_at(u32 address) { return *(volatile u16 *)address; }
static u32 long_at(u32 address) { return *(volatile u32 *)address; }

static void print(const char *text) {
	for (; *text; text++) {
		while (!(inb(0x3fd) & 0x20)) { }
		outb(0x3f8, *text);
	}
}
static void print_number(u32 value) {
	char digits[12];
	int at = 11;
	digits[at] = 0;
	do digits[--at] = '0' + value % 10; while (value /= 10);
	print(digits + at);
}

static u32 wrong;
static void check(const char *what, int right) {
	print(what);
	print(right ? ": right\n" : ": wrong\n");
	if (!right) wrong++;
}
static int sums_to_zero(u32 from, u32 length) {
	u8 sum = 0;
	for (u32 at = 0; at < length; at++) sum += byte_at(from + at);
	return sum == 0;
}

static void bios_data_area(void) {
	u32 base = word_at(0x413), ebda = word_at(0x40e);
	check("base memory", base >= 512 && base <= 640);
	check("EBDA", ebda * 16 == base * 1024 && byte_at(ebda * 16) == 640 - base);
	check("COM1", word_at(0x400) == 0x3f8);
}

/* (MultiProcessor Specification 1.4, "MP Configuration Table") */
static void mp_table(void) {
	u32 pointer = 0;
	for (u32 at = 0xf0000; at < 0x100000 && !pointer; at += 16)
		if (long_at(at) == 0x5f504d5f && sums_to_zero(at, 16)) pointer = at;
	u32 table = pointer ? long_at(pointer + 4) : 0;
	if (!table || long_at(table) != 0x504d4350 || !sums_to_zero(table, word_at(table + 4))) {
		check("MP table", 0);
		return;
	}
	u32 seen[5] = { 0 }, isa = 255, timer_pin = 0, at = table + 44;
	for (u32 left = word_at(table + 34); left; left--) {
		u32 type = byte_at(at);
		if (type > 4) break;
		seen[type]++;
		if (type == 1 && byte_at(at + 2) == 'I' && byte_at(at + 3) == 'S') isa = byte_at(at + 1);
		if (type == 3 && byte_at(at + 1) == 0 && byte_at(at + 4) == isa && byte_at(at + 5) == 0) timer_pin = byte_at(at + 7);
		at += type == 0 ? 20 : 8;
	}
	check("MP table", seen[0] >= 1 && seen[1] == 2 && seen[2] == 1 && seen[4] == 2);
	check("MP table ends where it says", at == table + word_at(table + 4));
	check("MP table's timer on pin 2", timer_pin == 2);
	check("MP table's local APIC", long_at(table + 36) == 0xfee00000);
}

/* A system of ACPI 1.0 knows the RSDT alone. (ACPI, "Root System Description Table") */
static void rsdt(void) {
	u32 rsdp = 0;
	for (u32 at = 0xe0000; at < 0x100000 && !rsdp; at += 16)
		if (long_at(at) == 0x20445352 && long_at(at + 4) == 0x20525450) rsdp = at;
	u32 table = rsdp ? long_at(rsdp + 16) : 0;
	int madt = 0, fadt = 0;
	if (table && long_at(table) == 0x54445352 && sums_to_zero(table, long_at(table + 4))) {
		for (u32 at = 36; at < long_at(table + 4); at += 4) {
			u32 signature = long_at(long_at(table + at));
			madt |= signature == 0x43495041;
			fadt |= signature == 0x50434146;
		}
	}
	check("RSDT", madt && fadt);
}

static u8 rtc_read(u8 index) { outb(0x70, index); return inb(0x71); }
static void rtc_write(u8 index, u8 value) { outb(0x70, index); outb(0x71, value); }

/* IRQF is set with any flag whose enable is set, with interrupts off and register C polled. (MC146818A) */
static void rtc_flag(const char *name, u8 flag, u32 times) {
	u32 right = 0, wrong_flags = 0;
	rtc_write(0x0b, 0x02 | flag);
	rtc_read(0x0c);
	for (u32 tries = 0; tries < 40000000 && right + wrong_flags < times; tries++) {
		u8 c = rtc_read(0x0c);
		if (((c & flag) != 0) != ((c & 0x80) != 0)) wrong_flags++;
		else if (c & flag) right++;
	}
	rtc_write(0x0b, 0x02);
	check(name, right == times);
}
static void rtc(void) {
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	rtc_write(0x0a, 0x26);
	for (u8 index = 1; index <= 5; index += 2) rtc_write(index, 0xff); /* an alarm every second */
	rtc_flag("RTC periodic flag", 0x40, 50);
	rtc_flag("RTC alarm flag", 0x20, 1);
	rtc_flag("RTC update flag", 0x10, 1);
}

extern void irq13_entry(void), other_entry(void);
static u64 gdt[3] = { 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull }, idt[64];
struct descriptor { u16 limit; u32 base; } __attribute__((packed));
#define ERRORS 2000 /* enough for code to be compiled */
static volatile u32 irqs, waited;

void irq13(void) {
	irqs++;
	outb(0xf0, 0);
	/* IGNNE# is asserted: what waits for exceptions goes on. */
	asm volatile("fwait; fwait");
	waited++;
	asm volatile("fnclex");
	outb(0xa0, 0x20);
	outb(0x20, 0x20);
}
void other_vector(void) {
	check("a vector other than IRQ 13", 0);
	asm volatile("outl %0, %1" ::"a"(0x4e520000 | wrong), "Nd"((u16)0xf4));
	for (;;) asm("cli; hlt");
}
static void set_vector(u32 vector, void (*entry)(void)) {
	u32 at = (u32)entry;
	idt[vector] = (at & 0xffff) | (8ull << 16) | (0x8eull << 40) | ((u64)(at >> 16) << 48);
}

/* With CR0.NE clear an x87 error is IRQ 13. (SDM Vol. 1, "MS-DOS Compatibility Sub-mode") */
static void x87_errors(void) {
	struct descriptor gdtr = { sizeof gdt - 1, (u32)gdt }, idtr = { sizeof idt - 1, (u32)idt };
	asm volatile("lgdt %0; ljmp $8, $1f; 1: mov $16, %%eax; mov %%eax, %%ds; mov %%eax, %%es; mov %%eax, %%ss" ::"m"(gdtr) : "eax");
	for (u32 vector = 0; vector < 64; vector++) set_vector(vector, other_entry);
	set_vector(0x2d, irq13_entry);
	asm volatile("lidt %0" ::"m"(idtr));
	static const u8 programmed[][2] = { { 0x20, 0x11 }, { 0xa0, 0x11 }, { 0x21, 0x20 }, { 0xa1, 0x28 }, { 0x21, 4 },
		{ 0xa1, 2 }, { 0x21, 1 }, { 0xa1, 1 }, { 0x21, 0xfb }, { 0xa1, 0xdf } };
	for (u32 at = 0; at < sizeof programmed / 2; at++) outb(programmed[at][0], programmed[at][1]);
	u16 control = 0x37f & ~4; /* division by zero unmasked */
	asm volatile("mov %%cr0, %%eax; and $~0x2c, %%eax; or $2, %%eax; mov %%eax, %%cr0; fninit; fldcw %0" ::"m"(control) : "eax");
	for (u32 times = 0; times < ERRORS; times++)
		asm volatile("fldz; fld1; fdiv %st(1), %st; sti; fwait; cli; fstp %st(0); fstp %st(0)");
	check("x87 errors by IRQ 13", irqs == ERRORS);
	check("IGNNE#", waited == ERRORS);
}

void pc_main(void) {
	bios_data_area();
	mp_table();
	rsdt();
	rtc();
	x87_errors();
	print_number(wrong);
	print(" wrong\n");
	asm volatile("outl %0, %1" ::"a"(0x4e520000 | wrong), "Nd"((u16)0xf4));
	for (;;) asm("cli; hlt");
}
