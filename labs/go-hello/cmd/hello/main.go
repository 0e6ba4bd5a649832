// The book's program: main.main says hello. Trace it as main.main.
package main

import "fmt"

func main() {
	fmt.Println("Hello, BPF")
}
