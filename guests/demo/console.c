/* COM1 and text. Knows nothing of what is said. */
#include <stdarg.h>
#include "demo.h"

enum { COM1 = 0x3F8, LINE_STATUS = COM1 + 5, TRANSMIT_EMPTY = 0x20, DEBUG_EXIT = 0xF4 };

unsigned checks, failures;

static void put(char character) {
  if (character == '\n') put('\r');
  for (int tries = 0; tries < 100000 && !(inb(LINE_STATUS) & TRANSMIT_EMPTY); tries++) pause();
  outb(COM1, (uint8_t)character);
}

static void put_padded(const char *text, int length, int width, bool left, char fill) {
  for (int i = length; !left && i < width; i++) put(fill);
  for (int i = 0; i < length; i++) put(text[i]);
  for (int i = length; left && i < width; i++) put(' ');
}

static int digits(char *into, uint64_t value, unsigned base) {
  char reversed[20];
  int length = 0;
  do {
    reversed[length++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value);
  for (int i = 0; i < length; i++) into[i] = reversed[length - 1 - i];
  return length;
}

void print(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  for (const char *at = format; *at; at++) {
    if (*at != '%') {
      put(*at);
      continue;
    }
    at++;
    bool left = *at == '-';
    if (left) at++;
    char fill = *at == '0' ? '0' : ' ';
    int width = 0;
    while (*at >= '0' && *at <= '9') width = width * 10 + *at++ - '0';
    char text[21];
    if (*at == 's') {
      const char *string = va_arg(arguments, const char *);
      int length = 0;
      while (string[length]) length++;
      put_padded(string, length, width, left, ' ');
    } else if (*at == 'c') {
      put((char)va_arg(arguments, int));
    } else {
      uint64_t value = va_arg(arguments, uint64_t);
      put_padded(text, digits(text, value, *at == 'x' ? 16 : 10), width, left, fill);
    }
  }
  va_end(arguments);
}

void heading(const char *text) { print("\n%s\n", text); }

void check(bool holds, const char *what) {
  checks++;
  if (holds) return;
  failures++;
  print("  FAILED: %s\n", what);
}

/* The status as nonroot's init says it: "NR" in the upper half, so that it is told from other uses of the port. */
void end(unsigned status) {
  outl(DEBUG_EXIT, 0x4E520000 | (status & 0xFF));
  extern _Noreturn void stop(void);
  stop();
}
