// render answers, for each line on standard input, what kustomize builds of the directory that the
// line names: a line of JSON with the objects, or with the error.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

type answer struct {
	// YAML is what kustomize prints.
	YAML string `json:"yaml"`
	// Error is why there is none.
	Error string `json:"error,omitempty"`
	// Nanoseconds is how long it took, files read included.
	Nanoseconds int64 `json:"nanoseconds"`
}

func build(directory string) (result answer) {
	defer func() {
		if reason := recover(); reason != nil {
			result.Error = fmt.Sprintf("panic: %v", reason)
		}
	}()
	// As kubectl does.
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionUnspecified
	start := time.Now()
	objects, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		return answer{Error: err.Error()}
	}
	text, err := objects.AsYaml()
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{YAML: string(text), Nanoseconds: time.Since(start).Nanoseconds()}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		if err := answers.Encode(build(lines.Text())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
