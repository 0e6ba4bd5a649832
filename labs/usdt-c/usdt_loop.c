/* A probe with typed arguments, hit as often as the command line says.
 *
 *   usdt_loop STEPS [--wait]
 *
 * usdt_loop:step has an int, a pointer to a string, and a u64 that needs more than 32 bits;
 * usdt_loop:done has the number of steps and is hit once. Compiled with -DSEMAPHORES, the
 * program counts in a semaphore who listens, and spares itself the work while nobody does.
 */

#ifdef SEMAPHORES
#define _SDT_HAS_SEMAPHORES 1
#endif

#include <stdint.h>
#include <stdlib.h>
#include <sys/sdt.h>

#include "wait.h"

#ifdef SEMAPHORES
/* The tracer adds one to these for as long as it listens; the note in the file names them. */
unsigned short usdt_loop_step_semaphore __attribute__((section(".probes")));
unsigned short usdt_loop_done_semaphore __attribute__((section(".probes")));
#define LISTENED(probe) __builtin_expect(*(volatile unsigned short *)&probe##_semaphore, 0)
#else
#define LISTENED(probe) 1
#endif

static const char *const words[] = {"one", "two", "three", "five", "seven"};

int main(int argc, char **argv) {
  int steps = argc > 1 ? atoi(argv[1]) : 0, prepared = 0;
  uint64_t total = 0;

  if (steps <= 0) {
    fprintf(stderr, "usage: %s STEPS [--wait]\n", argv[0]);
    return 2;
  }
  wait_if_asked(argc, argv);
  for (int n = 0; n < steps; n++) {
    total += (1ULL << 32) + n;
    if (LISTENED(usdt_loop_step)) {
      prepared++;
      DTRACE_PROBE3(usdt_loop, step, n, words[n % 5], total);
    }
  }
  if (LISTENED(usdt_loop_done))
    DTRACE_PROBE1(usdt_loop, done, steps);
  printf("steps %d, prepared %d, total %llu\n", steps, prepared, (unsigned long long)total);
  return 0;
}
