// The traced program: calls a function, or the kernel, as often as it is told to.
//
//   workload calls N            work(0) to work(N - 1), one after the other
//   workload reads N            N reads of one byte from /dev/zero
//   workload bursts N TIMES     N reads, then a tenth of a second of rest; TIMES times
//   workload rate HZ SECONDS    HZ reads a second, a thousandth of those every millisecond
//   workload flood SECONDS      reads without a rest

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline, noclone)) void work(unsigned long n) { __asm__ volatile("" : : "r"(n)); }

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

static void sleep_until(double time) {
  struct timespec at = {(time_t)time, (long)((time - (time_t)time) * 1e9)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void reads(int zero, long times) {
  char byte;
  while (times-- > 0)
    if (read(zero, &byte, 1) != 1) exit(1);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  long first = atol(argv[2]), second = argc > 3 ? atol(argv[3]) : 0;
  int zero = open("/dev/zero", O_RDONLY);
  double start = now();
  if (!strcmp(argv[1], "calls")) {
    for (long n = 0; n < first; n++) work(n);
  } else if (!strcmp(argv[1], "reads")) {
    reads(zero, first);
  } else if (!strcmp(argv[1], "bursts")) {
    for (long n = 0; n < second; n++) {
      reads(zero, first);
      sleep_until(now() + 0.1);
    }
  } else if (!strcmp(argv[1], "rate")) {
    for (long tick = 1; tick <= second * 1000; tick++) {
      reads(zero, first / 1000);
      sleep_until(start + tick / 1000.0);
    }
  } else if (!strcmp(argv[1], "flood")) {
    while (now() < start + first) reads(zero, 1000);
  } else {
    return 2;
  }
  return 0;
}
