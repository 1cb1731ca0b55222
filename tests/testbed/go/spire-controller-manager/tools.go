//go:build tools

// Package tools pins the spire-controller-manager that the testbed builds.
package tools

import (
	_ "github.com/spiffe/spire-controller-manager/cmd"
)
