// Go: what its users write, goroutines with a WaitGroup or channels. The number of cores is GOMAXPROCS.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func number(word string) int {
	value, err := strconv.Atoi(word)
	if err != nil {
		panic(err)
	}
	return value
}

// go PROTOCOL, or go WORK COUNT RUNS
func main() {
	if len(os.Args) == 2 {
		serve(os.Args[1])
		return
	}
	work, known := works[os.Args[1]]
	if !known {
		fmt.Println("none")
		return
	}
	runs = number(os.Args[3])
	work(number(os.Args[2]))
}
