// Go's own resolver (CGO_ENABLED=0): it reads resolv.conf itself and makes its own system calls.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

func resolve(argument string) string {
	var found []string
	var err error
	if address, reverse := strings.CutPrefix(argument, "ptr:"); reverse {
		found, err = net.LookupAddr(address)
	} else {
		found, err = net.LookupHost(argument)
	}
	var missing *net.DNSError
	if errors.As(err, &missing) && missing.IsNotFound {
		return "-"
	}
	if err != nil {
		return "!" + err.Error()
	}
	for i := range found {
		found[i] = strings.TrimSuffix(found[i], ".")
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), ",")
}

func main() {
	for _, argument := range os.Args[1:] {
		fmt.Printf("%s=%s\n", argument, resolve(argument))
	}
}
