// Asks SPIRE's agent for secrets as Envoy does (Secret Discovery Service v3), and prints, as JSON, what it answers
// for each resource name: how many certificates it gives for which trust domain, or the error.
package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
)

type answer struct {
	// The call's error.
	Error string `json:"error,omitempty"`
	// Names of the secrets that were given.
	Secrets []string `json:"secrets,omitempty"`
	// Certificates in a tls_certificate.
	Certificates *int `json:"certificates,omitempty"`
	// Certificates in trusted_ca: what Envoy's default validator gets.
	TrustedCA *int `json:"trustedCA,omitempty"`
	// Certificates by trust domain: what Envoy's SPIFFE validator gets.
	Validator map[string]int `json:"validator,omitempty"`
}

func main() {
	socket := flag.String("socket", "", "path of the agent's socket")
	plain := flag.Bool("plain", false, "ask for trusted_ca instead of the SPIFFE validator")
	flag.Parse()
	if err := run(*socket, *plain, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(socket string, plain bool, names []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	connection, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := secret.NewSecretDiscoveryServiceClient(connection)
	answers := map[string]answer{}
	for _, name := range names {
		answers[name] = ask(ctx, client, plain, name)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func ask(ctx context.Context, client secret.SecretDiscoveryServiceClient, plain bool, name string) answer {
	metadata, err := structpb.NewStruct(map[string]any{"disable_spiffe_cert_validation": plain})
	if err != nil {
		return answer{Error: err.Error()}
	}
	response, err := client.FetchSecrets(ctx, &discovery.DiscoveryRequest{
		Node:          &core.Node{Id: "testbed", Metadata: metadata},
		TypeUrl:       "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
		ResourceNames: []string{name},
	})
	if err != nil {
		return answer{Error: err.Error()}
	}
	var given answer
	for _, resource := range response.Resources {
		var content tls.Secret
		if err := resource.UnmarshalTo(&content); err != nil {
			return answer{Error: err.Error()}
		}
		given.Secrets = append(given.Secrets, content.Name)
		if certificate := content.GetTlsCertificate(); certificate != nil {
			given.Certificates = count(certificate.CertificateChain)
		}
		validation := content.GetValidationContext()
		if validation.GetTrustedCa() != nil {
			given.TrustedCA = count(validation.TrustedCa)
		}
		if custom := validation.GetCustomValidatorConfig(); custom != nil {
			var validator tls.SPIFFECertValidatorConfig
			if err := custom.TypedConfig.UnmarshalTo(&validator); err != nil {
				return answer{Error: err.Error()}
			}
			given.Validator = map[string]int{}
			for _, domain := range validator.TrustDomains {
				given.Validator[domain.Name] = *count(domain.TrustBundle)
			}
		}
	}
	return given
}

// How many certificates are in it.
func count(source *core.DataSource) *int {
	rest, number := source.GetInlineBytes(), 0
	for {
		block, after := pem.Decode(rest)
		if block == nil {
			return &number
		}
		number++
		rest = after
	}
}
