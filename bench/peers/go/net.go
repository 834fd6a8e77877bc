package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
)

// A goroutine per connection for echo; net/http for HTTP.
func serve(protocol string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if protocol == "http" {
		panic(http.Serve(listener, http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Type", "text/plain")
			io.WriteString(response, "Hello, World!")
		})))
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go echo(connection)
	}
}

// io.Copy would splice from socket to socket inside the kernel; a server that looks at what it gets cannot.
func echo(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, 65536)
	for {
		n, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:n]); err != nil {
			return
		}
	}
}
