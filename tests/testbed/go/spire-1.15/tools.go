//go:build tools

// Package tools pins the SPIRE server and agent that the testbed builds.
package tools

import (
	_ "github.com/spiffe/spire/cmd/spire-agent"
	_ "github.com/spiffe/spire/cmd/spire-server"
)
