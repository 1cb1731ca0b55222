//go:build tools

// Package tools pins the spiffe-helper that the testbed builds.
package tools

import (
	_ "github.com/spiffe/spiffe-helper/cmd/spiffe-helper"
)
