#include <uapi/linux/ptrace.h>
#include <uapi/linux/in6.h>
enum color { RED, GREEN = 5, BLUE = 70000 };
enum sign { MINUS = -1, PLUS = 1 };
typedef u64 big_t;
struct inner { u8 small; union { u32 wide; struct { u16 low, high; }; }; };
struct key { enum color color; u32 slot; };
struct event {
  const big_t n;
  char args[3][4];
  u32 three : 3, ten : 10, nineteen : 19;
  s64 forty : 40;
  enum color color;
  enum sign sign : 4;
  struct in6_addr source;
  unsigned __int128 destination;
  __int128 number;
  bool ok;
  int matrix[2][3];
  u64 stack[20];
  struct inner pair[2];
  u8 mac[6];
  void *where;
  struct { s16 x, y; } point;
  volatile char comm[5];
  char letter;
  u8 rest[0];
};
BPF_HASH(events, struct key, struct event);
BPF_QUEUE(waiting, struct event, 4);
BPF_HISTOGRAM(dist);
int nothing(void *ctx) { return 0; }
