// Prints, as JSON, what a workload sees through the Workload API with go-spiffe: its X.509 SVID, and how many X.509
// roots and JWT keys it has of each trust domain.
//
// With -verify, it also says whether these bundles verify a certificate (PEM).
package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

type view struct {
	SVID string         `json:"svid"`
	X509 map[string]int `json:"x509"`
	JWT  map[string]int `json:"jwt"`
	// Empty without -verify.
	Verified string `json:"verified,omitempty"`
	Rejected string `json:"rejected,omitempty"`
}

func main() {
	socket := flag.String("socket", "", "path of the Workload API's socket")
	verify := flag.String("verify", "", "a certificate to verify")
	flag.Parse()
	if err := run(*socket, *verify); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(socket, verify string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client, err := workloadapi.New(ctx, workloadapi.WithAddr("unix:"+socket))
	if err != nil {
		return err
	}
	defer client.Close()
	x509, err := client.FetchX509Context(ctx)
	if err != nil {
		return fmt.Errorf("the X.509 context: %w", err)
	}
	jwt, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return fmt.Errorf("the JWT bundles: %w", err)
	}
	seen := view{
		SVID: x509.DefaultSVID().ID.String(),
		X509: map[string]int{},
		JWT:  map[string]int{},
	}
	for _, bundle := range x509.Bundles.Bundles() {
		seen.X509[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	for _, bundle := range jwt.Bundles() {
		seen.JWT[bundle.TrustDomain().Name()] = len(bundle.JWTAuthorities())
	}
	if verify != "" {
		text, err := os.ReadFile(verify)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return fmt.Errorf("%s is not PEM", verify)
		}
		id, _, err := x509svid.ParseAndVerify([][]byte{block.Bytes}, x509.Bundles)
		if err != nil {
			seen.Rejected = err.Error()
		} else {
			seen.Verified = id.String()
		}
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}
