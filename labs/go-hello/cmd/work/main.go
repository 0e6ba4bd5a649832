// Work is a small server without a network: goroutines answer requests, and each function is
// called as often as the command line says.
//
//	work [-wait] WORKERS REQUESTS [DEPTH]
//
// The functions to trace are marked noinline: a function that the compiler copies into its
// callers cannot be probed. README.md says how often each is called.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const defaultDepth = 100

var (
	data     [256]byte
	finished int64 // requests whose deferred function has run
)

// handle answers one request. It has a deferred call and three ways out.
//
//go:noinline
func handle(worker, request int, path string) (status int) {
	defer atomic.AddInt64(&finished, 1)
	if !known(path) {
		return 404
	}
	if checksum(data[:request%len(data)+1]) == 0 || request%7 == 0 {
		return 500
	}
	if request%10 == 3 {
		pause(worker + 1)
	}
	return 200
}

// known tells whether a path exists: those whose last digit is 0 or 5 do not.
//
//go:noinline
func known(path string) bool {
	if path == "" { // Or Go would check the index, and call something where it is wrong.
		return false
	}
	last := path[len(path)-1]
	return last != '0' && last != '5'
}

// checksum adds up a slice of 1 to 256 bytes, none of which is zero.
//
//go:noinline
func checksum(bytes []byte) (sum int) {
	for _, value := range bytes {
		sum += int(value)
	}
	return sum
}

// pause sleeps, so that the goroutine often wakes up on another thread.
//
//go:noinline
func pause(tens int) {
	time.Sleep(time.Duration(tens) * 10 * time.Microsecond)
}

// deep calls itself n times. Each call takes some 300 bytes of stack, so on a new goroutine the
// stack has to grow (Go copies it to a larger place) again and again.
//
//go:noinline
func deep(n int) int {
	var frame [256]byte
	frame[n%len(frame)] = 1
	if n > 0 {
		return deep(n-1) + int(frame[n%len(frame)])
	}
	return 0
}

// reserve makes the stack of a goroutine large once, so that it does not grow in what follows.
//
//go:noinline
func reserve(n int) byte {
	var frame [64 << 10]byte
	frame[n] = 1
	return frame[n/2]
}

// serve is one worker: it answers its own requests, numbered from 0.
func serve(worker, requests int, statuses *[3]int64) {
	reserve(worker)
	for request := 0; request < requests; request++ {
		switch handle(worker, request, "/item/"+strconv.Itoa(request)) {
		case 200:
			atomic.AddInt64(&statuses[0], 1)
		case 404:
			atomic.AddInt64(&statuses[1], 1)
		case 500:
			atomic.AddInt64(&statuses[2], 1)
		}
	}
}

func waitForSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	fmt.Printf("waiting; attach now, then: kill -USR1 %d\n", os.Getpid())
	<-signals
}

func numbers(arguments []string) (found []int) {
	for _, argument := range arguments {
		number, err := strconv.Atoi(argument)
		if err != nil || number < 0 {
			return nil
		}
		found = append(found, number)
	}
	return found
}

func main() {
	wait := flag.Bool("wait", false, "wait for SIGUSR1 before the work begins")
	flag.Parse()
	given := numbers(flag.Args())
	if len(given) == 2 {
		given = append(given, defaultDepth)
	}
	if len(given) != 3 {
		fmt.Fprintln(os.Stderr, "usage: work [-wait] WORKERS REQUESTS [DEPTH]")
		os.Exit(2)
	}
	workers, requests, depth := given[0], given[1], given[2]
	debug.SetGCPercent(-1) // the collector shrinks stacks: they would grow once more
	for index := range data {
		data[index] = byte(index%255 + 1)
	}
	if *wait {
		waitForSignal()
	}

	var statuses [3]int64
	var recursions int64
	var all sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		all.Add(2)
		go func(worker int) {
			defer all.Done()
			serve(worker, requests, &statuses)
		}(worker)
		go func() {
			defer all.Done()
			atomic.AddInt64(&recursions, int64(deep(depth)))
		}()
	}
	all.Wait()
	fmt.Printf("handled %d: %d ok, %d not found, %d failed; %d recursions\n",
		finished, statuses[0], statuses[1], statuses[2], recursions)
}
