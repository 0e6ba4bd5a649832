// A program with a hot function: known shares of its time, on any machine.
//
// The loops of the three functions are the same instructions; only how often they turn differs.
// So 70 % of the time is spent in checksum() whatever the processor, emulated or not. Requests are
// of many sizes: were they all alike, a clock that samples them could stand in step with them.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Kept apart, with a frame each: a stack can only be walked from frame to frame.
#define APART __attribute__((noinline, noclone))

static volatile unsigned long result;

static inline __attribute__((always_inline)) void turn(long turns) {
  unsigned long x = result;
  for (long n = 0; n < turns; n++) __asm__ volatile("" : "+r"(x));
  result = x + 1;
}

APART void parse(long size) { turn(10 * size); }
APART void checksum(long size) { turn(70 * size); }
APART void checksum_repaired(long size) { turn(7 * size); }
APART void reply(long size) { turn(20 * size); }

APART void serve(long size, int repaired) {
  parse(size);
  if (repaired) checksum_repaired(size);
  else checksum(size);
  reply(size);
}

// Asks the kernel itself: libc's function has no frame, which would hide the one that calls it.
APART void nap(long milliseconds) {
  struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
#if defined(__x86_64__)
  long number = 35, result;
  __asm__ volatile("syscall"
                   : "=a"(result) : "a"(number), "D"(&time), "S"(NULL) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long number __asm__("x8") = 101;
  register struct timespec *first __asm__("x0") = &time;
  register void *second __asm__("x1") = NULL;
  __asm__ volatile("svc 0" : "+r"(first) : "r"(number), "r"(second) : "memory");
#else
  nanosleep(&time, NULL);
#endif
}

static double cpu_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc == 4 && !strcmp(argv[1], "--sleep")) {
    for (int times = atoi(argv[2]); times > 0; times--) nap(atol(argv[3]));
    printf("slept %s times %s ms\n", argv[2], argv[3]);
    return 0;
  }
  int repaired = argc == 3 && !strcmp(argv[1], "--repaired");
  if (argc != 2 + repaired) {
    fprintf(stderr, "usage: hot [--repaired] CPU_SECONDS | hot --sleep TIMES MILLISECONDS\n");
    return 2;
  }
  double seconds = atof(argv[1 + repaired]);
  long requests = 0;
  while (cpu_seconds() < seconds) {
    serve(500 + random() % 1000, repaired);
    requests++;
  }
  printf("answered %ld requests in %s s of CPU time\n", requests, argv[1 + repaired]);
  return 0;
}
