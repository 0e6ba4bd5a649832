/* `--wait` as the last argument: stand still until SIGUSR1 comes, so that somebody can attach. */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void wait_if_asked(int argc, char **argv) {
  sigset_t go;
  int signal;

  if (argc < 2 || strcmp(argv[argc - 1], "--wait"))
    return;
  sigemptyset(&go);
  sigaddset(&go, SIGUSR1);
  sigprocmask(SIG_BLOCK, &go, NULL); /* a signal that comes too early is kept */
  printf("waiting; attach now, then: kill -USR1 %d\n", (int)getpid());
  fflush(stdout);
  sigwait(&go, &signal);
}
