// Goroutines, timers, a pool of workers, files, children and HTTP over loopback.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func must(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func pingPong(rounds int) int {
	there, back := make(chan int), make(chan int)
	go func() {
		for n := range there {
			back <- n + 1
		}
		close(back)
	}()
	n := 0
	for i := 0; i < rounds; i++ {
		there <- n
		n = <-back
	}
	close(there)
	return n
}

func workers(jobs int) int64 {
	var sum int64
	var group sync.WaitGroup
	queue := make(chan int, 16)
	for w := 0; w < 8; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for job := range queue {
				x := 0
				for i := 0; i < 1000; i++ {
					x += job * i
				}
				atomic.AddInt64(&sum, int64(x%1000))
			}
		}()
	}
	for j := 0; j < jobs; j++ {
		queue <- j
	}
	close(queue)
	group.Wait()
	return sum
}

func timers() int {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	var fired int32
	for i := 0; i < 50; i++ {
		time.AfterFunc(time.Duration(i)*100*time.Microsecond, func() { atomic.AddInt32(&fired, 1) })
	}
	for i := 0; i < 20; i++ {
		<-ticker.C
	}
	for atomic.LoadInt32(&fired) < 50 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	return int(fired)
}

func web(network, address string, clients, requests int) int64 {
	listener, err := net.Listen(network, address)
	must(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d", r.Method, r.URL.Path, len(body))
	})}
	go server.Serve(listener)
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: clients,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, listener.Addr().String())
		}}}
	var total int64
	var group sync.WaitGroup
	for c := 0; c < clients; c++ {
		group.Add(1)
		go func(c int) {
			defer group.Done()
			for i := 0; i < requests; i++ {
				answer, err := client.Get(fmt.Sprintf("http://test/%d/%d", c, i))
				must(err)
				text, err := io.ReadAll(answer.Body)
				must(err)
				answer.Body.Close()
				atomic.AddInt64(&total, int64(len(text)))
			}
		}(c)
	}
	group.Wait()
	client.CloseIdleConnections()
	must(server.Shutdown(context.Background()))
	return total
}

func signals(count int) int {
	arrived := make(chan os.Signal, count)
	signal.Notify(arrived, syscall.SIGUSR1)
	for i := 0; i < count; i++ {
		must(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
		<-arrived
	}
	return count
}

func children(count int) int {
	good := int32(0)
	var group sync.WaitGroup
	for i := 0; i < count; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			out, err := exec.Command("sh", "-c", fmt.Sprintf("echo %d", i)).Output()
			if err == nil && string(out) == fmt.Sprintf("%d\n", i) {
				atomic.AddInt32(&good, 1)
			}
		}(i)
	}
	group.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	sleep := exec.CommandContext(ctx, "sleep", "100")
	must(sleep.Start())
	cancel()
	fmt.Println("sleep:", sleep.Wait())
	return int(good)
}

func files() int {
	folder, err := os.MkdirTemp("", "go")
	must(err)
	defer os.RemoveAll(folder)
	for i := 0; i < 100; i++ {
		must(os.WriteFile(filepath.Join(folder, fmt.Sprint(i)), make([]byte, i*100), 0o600))
	}
	total := 0
	must(filepath.Walk(folder, func(_ string, info os.FileInfo, err error) error {
		must(err)
		if !info.IsDir() {
			total += int(info.Size())
		}
		return nil
	}))
	return total
}

func collect() int {
	kept := [][]byte{}
	for i := 0; i < 20000; i++ {
		piece := make([]byte, 1000)
		piece[0] = byte(i)
		if i%10 == 0 {
			kept = append(kept, piece)
		}
	}
	runtime.GC()
	sum := 0
	for _, piece := range kept {
		sum += int(piece[0])
	}
	return sum
}

func main() {
	fmt.Println("ping-pong:", pingPong(20000))
	fmt.Println("workers:", workers(5000))
	fmt.Println("timers:", timers())
	fmt.Println("tcp:", web("tcp", "127.0.0.1:0", 8, 50))
	fmt.Println("tcp6:", web("tcp", "[::1]:0", 2, 10))
	fmt.Println("unix:", web("unix", "/tmp/go.sock", 8, 50))
	fmt.Println("signals:", signals(200))
	fmt.Println("children:", children(8))
	fmt.Println("files:", files())
	fmt.Println("collect:", collect())
	_, err := os.Open("/no/such")
	fmt.Println(err)
	os.Exit(7)
}
