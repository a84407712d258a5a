/* What a kernel's mechanisms cost under a hypervisor: NAME COUNT. No library, so that it fits on a command line. */

typedef long word;

static word call(word number, word a, word b, word c, word d) {
  register word r10 __asm__("r10") = d;
  register word r8 __asm__("r8") = -1;
  register word r9 __asm__("r9") = 0;
  word result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

enum { READ = 0, WRITE = 1, MMAP = 9, PIPE = 22, NANOSLEEP = 35, FORK = 57, EXIT = 60, WAIT = 61, PARENT = 110 };

static void calls(word n) {
  while (n-- > 0) call(PARENT, 0, 0, 0, 0);
}

/* First touch of anonymous pages. */
static void faults(word n) {
  volatile char *memory = (char *)call(MMAP, 0, n * 4096, 3, 0x22);
  for (word page = 0; page < n; page++) memory[page * 4096] = 1;
}

static void forks(word n) {
  while (n-- > 0) {
    word child = call(FORK, 0, 0, 0, 0);
    if (child == 0) call(EXIT, 0, 0, 0, 0);
    call(WAIT, child, 0, 0, 0);
  }
}

/* A byte there and back: two changes of process. */
static void switches(word n) {
  int there[2], back[2];
  char byte = 0;
  call(PIPE, (word)there, 0, 0, 0);
  call(PIPE, (word)back, 0, 0, 0);
  word child = call(FORK, 0, 0, 0, 0);
  for (word i = 0; i < n; i++) {
    if (child) call(WRITE, there[1], (word)&byte, 1, 0);
    call(READ, child ? back[0] : there[0], (word)&byte, 1, 0);
    if (!child) call(WRITE, back[1], (word)&byte, 1, 0);
  }
  if (!child) call(EXIT, 0, 0, 0, 0);
  call(WAIT, child, 0, 0, 0);
}

static void timers(word n) {
  word millisecond[2] = {0, 1000000};
  while (n-- > 0) call(NANOSLEEP, (word)millisecond, 0, 0, 0);
}

void run(word *stack) {
  char **arguments = (char **)(stack + 1);
  word n = 0;
  for (char *digit = arguments[2]; *digit; digit++) n = n * 10 + *digit - '0';
  switch (arguments[1][1]) {
    case 'y': calls(n); break;    /* syscall */
    case 'a': faults(n); break;   /* fault */
    case 'o': forks(n); break;    /* fork */
    case 'w': switches(n); break; /* switch */
    case 'i': timers(n); break;   /* timer */
  }
  call(EXIT, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
