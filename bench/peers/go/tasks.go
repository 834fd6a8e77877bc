package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"time"
)

var runs int // how many times the runner wants a work to be timed

// A warm-up, then the median of a few runs; a time that work returns is the part that counts. Wall time: a goroutine
// may run on any core.
func report(count int, work func() time.Duration) {
	work()
	var times []float64
	for i := 0; i < runs; i++ {
		started := time.Now()
		counted := work()
		if counted == 0 {
			counted = time.Since(started)
		}
		times = append(times, float64(counted.Nanoseconds()))
	}
	sort.Float64s(times)
	median := times[runs/2]
	if runs%2 == 0 {
		median = (times[runs/2-1] + times[runs/2]) / 2
	}
	fmt.Printf("nanoseconds_per_unit %.2f\n", median/float64(count))
}

func gathered(count int, job func(int) int) {
	var group sync.WaitGroup
	results := make([]int, count)
	group.Add(count)
	for i := 0; i < count; i++ {
		go func(i int) {
			defer group.Done()
			results[i] = job(i)
		}(i)
	}
	group.Wait()
	if results[count-1] != count-1 {
		panic("wrong result")
	}
}

func short(i int) int { return i }

func yieldsOnce(i int) int {
	runtime.Gosched()
	return i
}

func turns(rounds int) func(int) int {
	return func(i int) int {
		for round := 0; round < rounds; round++ {
			runtime.Gosched()
		}
		return i
	}
}

func sleeps(duration time.Duration) func(int) int {
	return func(i int) int {
		time.Sleep(duration)
		return i
	}
}

func cancelled(count int) time.Duration {
	ctx, cancel := context.WithCancel(context.Background())
	var group, started sync.WaitGroup
	group.Add(count)
	started.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			defer group.Done()
			timer := time.NewTimer(time.Hour)
			defer timer.Stop()
			started.Done()
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}()
	}
	started.Wait()
	begin := time.Now()
	cancel()
	group.Wait()
	return time.Since(begin)
}

func queue(count int) time.Duration {
	items := make(chan int, 100)
	go func() {
		for i := 1; i <= count; i++ {
			items <- i
		}
		close(items)
	}()
	last := 0
	for item := range items {
		last = item
	}
	if last != count {
		panic("wrong item")
	}
	return 0
}

func lock(count int) time.Duration {
	var mutex sync.Mutex
	inside := 0
	gathered(100, func(i int) int {
		for round := 0; round < count/100; round++ {
			mutex.Lock()
			inside++
			runtime.Gosched()
			mutex.Unlock()
		}
		return i
	})
	if inside != count {
		panic("wrong count")
	}
	return 0
}

func level(depth int, result chan<- int) {
	if depth == 0 {
		result <- 0
		return
	}
	below := make(chan int)
	go level(depth-1, below)
	result <- 1 + <-below
}

func chain(count int) time.Duration {
	result := make(chan int)
	go level(count, result)
	if <-result != count {
		panic("wrong depth")
	}
	return 0
}

func resident() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	status, err := os.Open("/proc/self/status")
	if err != nil {
		panic(err)
	}
	defer status.Close()
	lines := bufio.NewScanner(status)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "VmRSS:") {
			var kibibytes float64
			fmt.Sscanf(lines.Text(), "VmRSS: %f", &kibibytes)
			return kibibytes * 1024
		}
	}
	panic("no VmRSS")
}

func memoryFunction(count int) {
	gathered(1000, yieldsOnce)
	before := resident()
	for i := 0; i < count; i++ {
		go sleeps(time.Hour)(i)
	}
	time.Sleep(500 * time.Millisecond)
	fmt.Printf("bytes_per_task %.1f\n", (resident()-before)/float64(count))
}

// A gathered piece of work, timed whole.
func timed(count int, jobs int, job func(int) int) {
	report(count, func() time.Duration {
		gathered(jobs, job)
		return 0
	})
}

var works = map[string]func(int){
	"spawn":  func(count int) { timed(count, count, short) },
	"yield":  func(count int) { timed(count, count, yieldsOnce) },
	"sleep":  func(count int) { timed(count, count, sleeps(10*time.Millisecond)) },
	"switch": func(count int) { timed(count, 100, turns(count/100)) },
	"alone": func(count int) {
		report(count, func() time.Duration {
			turns(count)(0)
			return 0
		})
	},
	"cancel":            func(count int) { report(count, func() time.Duration { return cancelled(count) }) },
	"queue":             func(count int) { report(count, func() time.Duration { return queue(count) }) },
	"lock":              func(count int) { report(count, func() time.Duration { return lock(count) }) },
	"chain":             func(count int) { report(count, func() time.Duration { return chain(count) }) },
	"memory_function":   memoryFunction,
	"million_functions": func(count int) { gathered(count, sleeps(time.Second)) },
}
