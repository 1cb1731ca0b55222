//go:build tools

// Package tools pins what gives the pods of the testbed's nodes their network.
package tools

import (
	_ "github.com/containernetworking/plugins/plugins/ipam/host-local"
	_ "github.com/containernetworking/plugins/plugins/main/bridge"
)
