/*
 * nonroot's agent: runs commands in a Linux guest for a host at the other end of a port, with their input, output, errors, signals and status.
 *
 *     agent PORT [PREFIX...]
 *
 * PORT is a virtio-console port, /dev/vportNpM, or the number of a descriptor that is open. PREFIX goes before each command, as in
 * `chroot /disk`. packages/image/README.md, "The agent", specifies the protocol. A static program without a C library: system calls and nothing else.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
  SYS_read = 0, SYS_write = 1, SYS_open = 2, SYS_close = 3, SYS_poll = 7, SYS_rt_sigprocmask = 14, SYS_ioctl = 16, SYS_dup2 = 33, SYS_fork = 57,
  SYS_execve = 59, SYS_exit = 60, SYS_wait4 = 61, SYS_kill = 62, SYS_fcntl = 72, SYS_chdir = 80, SYS_setsid = 112, SYS_signalfd4 = 289, SYS_pipe2 = 293,
};
enum { O_RDWR = 2, O_NOCTTY = 0400, O_NONBLOCK = 04000, O_CLOEXEC = 02000000 };
enum { F_SETFD = 2, F_SETFL = 4, FD_CLOEXEC = 1 };
enum { EINTR = 4, EAGAIN = 11, ENOENT = 2, EACCES = 13, ENOTDIR = 20 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16 };
enum { TIOCSCTTY = 0x540E, TIOCSWINSZ = 0x5414, TIOCGPTN = 0x80045430, TIOCSPTLCK = 0x40045431 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2, SIGCHLD = 17, WNOHANG = 1 };

/* The protocol. */
enum { VERSION = 1, HEADER = 8, WINDOW = 65536, MOST_PAYLOAD = 262144, MOST_OUTPUT = 32768 - HEADER, MOST_COMMANDS = 64 };
enum { START = 1, INPUT = 2, SIGNAL = 3, RESIZE = 4, CREDIT = 5, LEAVE = 6 };
enum { HELLO = 0x81, OUTPUT = 0x82, ERRORS = 0x83, TAKEN = 0x84, ENDED = 0x85, REFUSED = 0x86 };
enum { START_FIXED = 10, ON_TERMINAL = 1, MOST_WORDS = 4096, MOST_PREFIX = 16 };

struct pollfd { int fd; short events, revents; };
struct winsize { u16 rows, columns, x, y; };

/* What a command writes on one of its two outputs. `polled`: its place among what was polled, 0 for none. */
struct outlet {
  int fd, polled;
  u32 credit;
};

struct command {
  int used;
  u16 id;
  int pid, ended, status, terminal;
  int input;                    /* -1: closed. The same as the outlet's on a terminal. */
  int input_ended;
  struct outlet out[2];
  u32 first, held;              /* Input that the command has not taken: a ring. */
  u8 ring[WINDOW];
};

static struct command commands[MOST_COMMANDS];
static u8 incoming[HEADER + MOST_PAYLOAD];
static u32 have;
static u8 outgoing[HEADER + MOST_OUTPUT];
static int port;
static char **environment, **prefix;
static int prefix_length;

static long call(long number, long a, long b, long c, long d) {
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return result;
}
#define CALL(n, a, b, c, d) call(n, (long)(a), (long)(b), (long)(c), (long)(d))

void *memcpy(void *to, const void *from, u64 length) {
  void *start = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
  return start;
}
void *memset(void *to, int value, u64 length) {
  void *start = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(value) : "memory");
  return start;
}
static u64 length_of(const char *text) {
  u64 length = 0;
  while (text[length]) length++;
  return length;
}
static void __attribute__((noreturn)) leave(int status) {
  for (;;) CALL(SYS_exit, status, 0, 0, 0);
}
static void close_fd(int *fd) {
  if (*fd >= 0) CALL(SYS_close, *fd, 0, 0, 0);
  *fd = -1;
}

/* To the host. It takes everything: what it has asked for is bounded by its credit. */

static void write_all(const u8 *bytes, u64 length) {
  while (length > 0) {
    long done = CALL(SYS_write, port, bytes, length, 0);
    if (done == -EAGAIN) {
      struct pollfd wait = { port, POLLOUT, 0 };
      CALL(SYS_poll, &wait, 1, -1, 0);
    } else if (done == -EINTR) continue;
    else if (done <= 0) leave(255);
    else {
      bytes += done;
      length -= done;
    }
  }
}

/* `outgoing` has the payload already. */
static void send(u16 id, u8 type, u32 length) {
  *(u32 *)outgoing = length;
  *(u16 *)(outgoing + 4) = id;
  outgoing[6] = type;
  outgoing[7] = 0;
  write_all(outgoing, HEADER + length);
}
static void send_number(u16 id, u8 type, u32 value, u32 length) {
  *(u32 *)(outgoing + HEADER) = value;
  send(id, type, length);
}
static void refuse(u16 id, const char *why) {
  u64 length = length_of(why);
  memcpy(outgoing + HEADER, why, length);
  send(id, REFUSED, length);
}

/* Starting a command */

static char *words[MOST_WORDS];
static char *environs[MOST_WORDS];
static char path_buffer[4096];

static const char *value_of(char **list, const char *name) {
  u64 length = length_of(name);
  for (; *list; list++) {
    u64 at = 0;
    while (at < length && (*list)[at] == name[at]) at++;
    if (at == length && (*list)[at] == '=') return *list + at + 1;
  }
  return 0;
}
static int is_same_name(const char *left, const char *right) {
  while (*left && *left != '=' && *left == *right) left++, right++;
  return *left == '=' && *right == '=';
}
static void say(const char *text) { CALL(SYS_write, 2, text, length_of(text), 0); }

/* As execvp. Status 127 for what is not there, 126 for what cannot be run. */
static void __attribute__((noreturn)) execute(char **arguments, char **environ) {
  const char *name = arguments[0];
  long error = -ENOENT;
  int is_path = 0;
  for (const char *at = name; *at; at++) is_path |= *at == '/';
  if (is_path) error = CALL(SYS_execve, name, arguments, environ, 0);
  else if (*name) {
    const char *path = value_of(environ, "PATH");
    if (!path) path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    u64 name_length = length_of(name);
    while (*path) {
      u64 length = 0;
      while (path[length] && path[length] != ':') length++;
      if (length + name_length + 2 <= sizeof path_buffer) {
        memcpy(path_buffer, path, length);
        path_buffer[length] = '/';
        memcpy(path_buffer + length + 1, name, name_length + 1);
        long result = CALL(SYS_execve, path_buffer, arguments, environ, 0);
        if (result != -ENOENT && result != -ENOTDIR) error = result;
      }
      path += length + (path[length] == ':');
    }
  }
  say("nonroot: ");
  say(name);
  say(error == -ENOENT ? ": not found\n" : error == -EACCES ? ": permission denied\n" : ": cannot be run\n");
  leave(error == -ENOENT ? 127 : 126);
}

static void decimal(char *to, u32 value) {
  char digits[10];
  int count = 0;
  do digits[count++] = '0' + value % 10; while (value /= 10);
  while (count) *to++ = digits[--count];
  *to = 0;
}

/* Both ends of a pseudo-terminal. */
static int open_terminal(int *master, int *slave, struct winsize *size) {
  static char name[24] = "/dev/pts/";
  int unlock = 0;
  u32 number;
  *master = CALL(SYS_open, "/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0, 0);
  if (*master < 0) return 0;
  CALL(SYS_ioctl, *master, TIOCSPTLCK, &unlock, 0);
  CALL(SYS_ioctl, *master, TIOCGPTN, &number, 0);
  CALL(SYS_ioctl, *master, TIOCSWINSZ, size, 0);
  decimal(name + 9, number);
  *slave = CALL(SYS_open, name, O_RDWR | O_NOCTTY, 0, 0);
  if (*slave >= 0) return 1;
  close_fd(master);
  return 0;
}

static void __attribute__((noreturn)) become(int input, int output, int errors, int terminal) {
  u64 none = 0;
  CALL(SYS_setsid, 0, 0, 0, 0);
  CALL(SYS_dup2, input, 0, 0, 0);
  CALL(SYS_dup2, output, 1, 0, 0);
  CALL(SYS_dup2, errors, 2, 0, 0);
  if (terminal) CALL(SYS_ioctl, 0, TIOCSCTTY, 0, 0);
  if (terminal && input > 2) CALL(SYS_close, input, 0, 0, 0);
  CALL(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
  const char *home = value_of(environs, "HOME");
  if (home) CALL(SYS_chdir, home, 0, 0, 0);
  execute(words, environs);
}

/* Words and environment out of the payload: `count` texts, each with its zero. 0: it makes no sense. */
static int parse_words(const u8 *payload, u32 length, u32 count, u32 variables) {
  const char *text = (const char *)payload, *end = text + length;
  u32 word = 0, variable = 0;
  if (count == 0 || count + prefix_length >= MOST_WORDS || variables >= MOST_WORDS / 2) return 0;
  for (; (int)word < prefix_length; word++) words[word] = prefix[word];
  for (u32 index = 0; index < count + variables; index++) {
    const char *start = text;
    while (text < end && *text) text++;
    if (text == end) return 0;
    text++;
    if (index < count) words[word++] = (char *)start;
    else environs[variable++] = (char *)start;
  }
  words[word] = 0;
  u32 own = variable;
  for (char **inherited = environment; *inherited && variable < MOST_WORDS - 1; inherited++) {
    int replaced = 0;
    for (u32 index = 0; index < own; index++) replaced |= is_same_name(environs[index], *inherited);
    if (!replaced) environs[variable++] = *inherited;
  }
  environs[variable] = 0;
  return 1;
}

static struct command *find(u16 id) {
  for (int index = 0; index < MOST_COMMANDS; index++)
    if (commands[index].used && commands[index].id == id) return &commands[index];
  return 0;
}

/* START: flags, 0, rows, columns, count of words, count of variables; the words, the variables. */
static void start(u16 id, const u8 *payload, u32 length) {
  struct command *command = 0;
  int input[2] = { -1, -1 }, output[2] = { -1, -1 }, errors[2] = { -1, -1 };
  if (find(id)) return refuse(id, "a command of that number runs");
  for (int index = 0; index < MOST_COMMANDS && !command; index++)
    if (!commands[index].used) command = &commands[index];
  if (!command) return refuse(id, "too many commands run");
  const u16 *fields = (const u16 *)payload;
  if (length < START_FIXED || !parse_words(payload + START_FIXED, length - START_FIXED, fields[3], fields[4]))
    return refuse(id, "the command is malformed");
  int terminal = payload[0] & ON_TERMINAL;
  struct winsize size = { fields[1], fields[2], 0, 0 };
  int made;
  if (terminal) made = open_terminal(&output[0], &output[1], &size);
  else
    made = CALL(SYS_pipe2, input, O_CLOEXEC, 0, 0) == 0 && CALL(SYS_pipe2, output, O_CLOEXEC, 0, 0) == 0 &&
           CALL(SYS_pipe2, errors, O_CLOEXEC, 0, 0) == 0;
  long pid = made ? CALL(SYS_fork, 0, 0, 0, 0) : -1;
  if (pid == 0) {
    if (terminal) become(output[1], output[1], output[1], 1);
    become(input[0], output[1], errors[1], 0);
  }
  close_fd(&input[0]);
  close_fd(&output[1]);
  close_fd(&errors[1]);
  if (pid < 0) {
    close_fd(&input[1]);
    close_fd(&output[0]);
    close_fd(&errors[0]);
    return refuse(id, "the guest has no room for another process");
  }
  if (!terminal) {
    /* Our ends only: the command's are descriptions of their own. */
    CALL(SYS_fcntl, input[1], F_SETFL, O_NONBLOCK, 0);
    CALL(SYS_fcntl, output[0], F_SETFL, O_NONBLOCK, 0);
    CALL(SYS_fcntl, errors[0], F_SETFL, O_NONBLOCK, 0);
  }
  command->used = 1;
  command->id = id;
  command->pid = pid;
  command->ended = command->status = command->input_ended = 0;
  command->first = command->held = 0;
  command->terminal = terminal;
  command->input = terminal ? output[0] : input[1];
  command->out[0].fd = output[0];
  command->out[1].fd = errors[0];
  command->out[0].credit = command->out[1].credit = WINDOW;
  command->out[0].polled = command->out[1].polled = 0;
}

/* Input: into the ring, from there into the command as it takes it */

static void close_input(struct command *command) {
  if (command->terminal) command->input = -1;
  else close_fd(&command->input);
}

static void feed(struct command *command) {
  while (command->held > 0) {
    u32 piece = WINDOW - command->first;
    if (piece > command->held) piece = command->held;
    /* Nobody reads it any more: it is taken all the same, so that its sender is not held up. */
    long done = command->input < 0 ? piece : CALL(SYS_write, command->input, command->ring + command->first, piece, 0);
    if (done == -EINTR) continue;
    if (done == -EAGAIN) return;
    if (done < 0) {
      close_input(command);
      continue;
    }
    command->first = (command->first + done) % WINDOW;
    command->held -= done;
    send_number(command->id, TAKEN, done, 4);
  }
  if (command->input_ended && command->input >= 0) close_input(command);
}

static void take_input(struct command *command, const u8 *bytes, u32 length) {
  static const u8 end_of_file = 4;
  if (length == 0) {
    /* A terminal has no end; what stands for it is a key. */
    if (command->terminal && command->held < WINDOW) {
      bytes = &end_of_file;
      length = 1;
    } else command->input_ended = 1;
  }
  for (u32 index = 0; index < length && command->held < WINDOW; index++)
    command->ring[(command->first + command->held++) % WINDOW] = bytes[index];
  feed(command);
}

/* Output. 0: there is no more now. */
static int drain(struct command *command, int which) {
  struct outlet *outlet = &command->out[which];
  u32 most = outlet->credit < MOST_OUTPUT ? outlet->credit : MOST_OUTPUT;
  if (outlet->fd < 0 || most == 0) return 0;
  long got = CALL(SYS_read, outlet->fd, outgoing + HEADER, most, 0);
  if (got == -EINTR) return 1;
  if (got == -EAGAIN) return 0;
  if (got <= 0) {
    /* On a terminal EIO says that the last has closed it. */
    if (command->terminal) command->input = -1;
    close_fd(&outlet->fd);
    return 0;
  }
  outlet->credit -= got;
  send(command->id, which ? ERRORS : OUTPUT, got);
  return 1;
}

/* It has ended, and what it wrote was sent: what a process that it left behind writes is not waited for. */
static void settle(struct command *command) {
  if (!command->ended) return;
  for (int which = 0; which < 2; which++) {
    struct outlet *outlet = &command->out[which];
    while (drain(command, which));
    /* There may be more: the host makes room when it has shown what it has. */
    if (outlet->fd >= 0 && outlet->credit == 0) return;
  }
  close_input(command);
  close_fd(&command->out[0].fd);
  close_fd(&command->out[1].fd);
  command->used = 0;
  send_number(command->id, ENDED, command->status, 1);
}

static void reap(void) {
  int status;
  for (;;) {
    long pid = CALL(SYS_wait4, -1, &status, WNOHANG, 0);
    if (pid <= 0) return;
    for (int index = 0; index < MOST_COMMANDS; index++) {
      struct command *command = &commands[index];
      if (!command->used || command->pid != pid) continue;
      command->ended = 1;
      command->status = status & 0x7f ? 128 + (status & 0x7f) : (status >> 8) & 0xff;
    }
  }
}

/* From the host */

static void resize(int terminal, const u8 *payload) {
  struct winsize size = { ((u16 *)payload)[0], ((u16 *)payload)[1], 0, 0 };
  CALL(SYS_ioctl, terminal, TIOCSWINSZ, &size, 0);
}

static void resize_console(const u8 *payload) {
  int console = CALL(SYS_open, "/dev/console", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0, 0);
  if (console < 0) return;
  resize(console, payload);
  close_fd(&console);
}

static void obey(u16 id, u8 type, const u8 *payload, u32 length) {
  if (type == LEAVE) leave(length > 0 ? payload[0] : 0);
  if (type == START) return start(id, payload, length);
  if (type == RESIZE && id == 0 && length >= 4) return resize_console(payload);
  struct command *command = find(id);
  /* It has ended meanwhile. */
  if (!command) return;
  if (type == INPUT) take_input(command, payload, length);
  else if (type == SIGNAL && length >= 1) {
    /* A group of its own it has once it runs. */
    if (!command->ended && CALL(SYS_kill, -command->pid, payload[0], 0, 0) < 0) CALL(SYS_kill, command->pid, payload[0], 0, 0);
  } else if (type == RESIZE && length >= 4 && command->terminal && command->out[0].fd >= 0) {
    resize(command->out[0].fd, payload);
  } else if (type == CREDIT && length >= 8 && payload[0] < 2) {
    u32 credit = command->out[payload[0]].credit + *(u32 *)(payload + 4);
    command->out[payload[0]].credit = credit > WINDOW ? WINDOW : credit;
  }
}

static void hear(void) {
  long got = CALL(SYS_read, port, incoming + have, sizeof incoming - have, 0);
  if (got == -EAGAIN || got == -EINTR) return;
  if (got <= 0) leave(255);
  have += got;
  u32 at = 0;
  while (have - at >= HEADER) {
    u32 length = *(u32 *)(incoming + at);
    if (length > MOST_PAYLOAD) leave(255);
    if (have - at - HEADER < length) break;
    obey(*(u16 *)(incoming + at + 4), incoming[at + 6], incoming + at + HEADER, length);
    at += HEADER + length;
  }
  if (at > 0) memcpy(incoming, incoming + at, have - at);
  have -= at;
}

static void serve(int children) {
  static struct pollfd polled[2 + 3 * MOST_COMMANDS];
  for (;;) {
    int count = 2;
    polled[0] = (struct pollfd){ port, POLLIN, 0 };
    polled[1] = (struct pollfd){ children, POLLIN, 0 };
    for (int index = 0; index < MOST_COMMANDS; index++) {
      struct command *command = &commands[index];
      if (!command->used) continue;
      for (int which = 0; which < 2; which++) {
        struct outlet *outlet = &command->out[which];
        outlet->polled = outlet->fd >= 0 && outlet->credit > 0 ? count : 0;
        if (outlet->polled) polled[count++] = (struct pollfd){ outlet->fd, POLLIN, 0 };
      }
      if (command->input >= 0 && command->held > 0) polled[count++] = (struct pollfd){ command->input, POLLOUT, 0 };
    }
    CALL(SYS_poll, polled, count, -1, 0);
    if (polled[1].revents) {
      u8 ignored[128];
      CALL(SYS_read, children, ignored, sizeof ignored, 0);
      reap();
    }
    if (polled[0].revents) hear();
    for (int index = 0; index < MOST_COMMANDS; index++) {
      struct command *command = &commands[index];
      if (!command->used) continue;
      feed(command);
      for (int which = 0; which < 2; which++)
        if (command->out[which].polled && polled[command->out[which].polled].revents) drain(command, which);
      settle(command);
    }
  }
}

static int open_port(const char *name) {
  u32 number = 0;
  const char *at = name;
  for (; *at >= '0' && *at <= '9'; at++) number = 10 * number + *at - '0';
  if (*at) return CALL(SYS_open, name, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0, 0);
  CALL(SYS_fcntl, number, F_SETFL, O_NONBLOCK, 0);
  return CALL(SYS_fcntl, number, F_SETFD, FD_CLOEXEC, 0) < 0 ? -1 : (int)number;
}

void __attribute__((noreturn, used)) begin(long *stack) {
  long count = stack[0];
  char **arguments = (char **)(stack + 1);
  u64 child = 1ul << (SIGCHLD - 1);
  environment = arguments + count + 1;
  if (count < 2 || count - 2 > MOST_PREFIX) leave(255);
  prefix = arguments + 2;
  prefix_length = count - 2;
  port = open_port(arguments[1]);
  if (port < 0) leave(255);
  /* A command that does not read its input is no reason to end. */
  child |= 1ul << (13 - 1);
  CALL(SYS_rt_sigprocmask, SIG_BLOCK, &child, 0, 8);
  u64 children = 1ul << (SIGCHLD - 1);
  *(u16 *)(outgoing + HEADER) = VERSION;
  *(u16 *)(outgoing + HEADER + 2) = MOST_COMMANDS;
  send(0, HELLO, 4);
  serve(CALL(SYS_signalfd4, -1, &children, 8, O_NONBLOCK | O_CLOEXEC));
  leave(255);
}

__asm__(".globl _start\n_start:\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call begin\n");
