// An HTTP server and client as Go programs usually are: static, no libc, the runtime's own poller and resolver.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	switch os.Args[1] {
	case "server": // goweb server ADDRESS: says who it is and who asked
		listener, err := net.Listen("tcp", os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			fmt.Fprintf(w, "go at %s asked by %s\n", local, r.RemoteAddr)
		})
		log.Fatal(http.Serve(listener, nil))
	case "get": // goweb get URL: twenty times, each on a new connection
		for i := 0; i < 20; i++ {
			transport := &http.Transport{DisableKeepAlives: true}
			response, err := (&http.Client{Transport: transport}).Get(os.Args[2])
			if err != nil {
				log.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != 200 {
				log.Fatal(response.Status, err)
			}
			response.Body.Close()
			if i == 0 {
				fmt.Print(string(body))
			}
		}
	case "resolve": // goweb resolve NAME
		addresses, err := net.LookupHost(os.Args[2])
		if err != nil {
			log.Fatal(err)
		}
		for _, address := range addresses {
			fmt.Println(address)
		}
	}
}
