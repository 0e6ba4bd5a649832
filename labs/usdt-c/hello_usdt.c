/* The book's hello_usdt, repaired: one probe without arguments, hit once.
 *
 * The macro's arguments are names, not strings. Quotes would become part of the names in the
 * ELF note, and nobody could enable them; a hyphen does not work once there are semaphores.
 */

#include <sys/sdt.h>

#include "wait.h"

int main(int argc, char **argv) {
  wait_if_asked(argc, argv);
  DTRACE_PROBE(hello_usdt, probe_main);
  puts("hello, USDT");
  return 0;
}
