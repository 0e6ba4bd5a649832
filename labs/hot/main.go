// The same in Go: 70 % of the time is spent in main.checksum. See README.md.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"
)

var result uint64

//go:noinline
func parse(size int) { result = turn(result, 10*size) }

//go:noinline
func checksum(size int) { result = turn(result, 70*size) }

//go:noinline
func reply(size int) { result = turn(result, 20*size) }

// Small enough to be copied into its callers, so it has no frame of its own.
func turn(x uint64, turns int) uint64 {
	for n := 0; n < turns; n++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

//go:noinline
func serve(size int) {
	parse(size)
	checksum(size)
	reply(size)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: hot-go SECONDS")
		os.Exit(2)
	}
	seconds, _ := strconv.ParseFloat(os.Args[1], 64)
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	requests := 0
	for time.Now().Before(end) {
		serve(500 + rand.Intn(1000))
		requests++
	}
	fmt.Println("answered", requests, "requests")
}
