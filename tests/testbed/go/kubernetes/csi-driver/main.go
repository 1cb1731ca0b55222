// Gives pods the Workload API as a volume, under the name of SPIFFE's CSI driver and with what that one does, and
// registers itself with the kubelet as the registrar beside that one does. It runs on the node, not in a pod.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const name = "csi.spiffe.io"

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	node, sockets, endpoint string
}

func main() {
	node := flag.String("node", "", "the node's name")
	sockets := flag.String("sockets", "", "the directory with the Workload API's socket")
	kubelet := flag.String("kubelet", "/var/lib/kubelet", "the kubelet's directory")
	flag.Parse()
	d := &driver{node: *node, sockets: *sockets, endpoint: filepath.Join(*kubelet, "plugins", name, "csi.sock")}
	if err := os.MkdirAll(d.sockets, 0o755); err != nil {
		log.Fatal(err)
	}
	ended := make(chan error)
	volumes, registrations := grpc.NewServer(), grpc.NewServer()
	csi.RegisterIdentityServer(volumes, d)
	csi.RegisterNodeServer(volumes, d)
	registration.RegisterRegistrationServer(registrations, d)
	// The kubelet looks for the second one, and finds the first by it.
	serve(volumes, d.endpoint, ended)
	serve(registrations, filepath.Join(*kubelet, "plugins_registry", name+"-reg.sock"), ended)
	log.Fatal(<-ended)
}

func serve(server *grpc.Server, socket string, ended chan<- error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		log.Fatal(err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	go func() { ended <- server.Serve(listener) }()
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              name,
		Endpoint:          d.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (d *driver) NotifyRegistrationStatus(
	_ context.Context, request *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !request.PluginRegistered {
		log.Fatalf("the kubelet does not register this driver: %s", request.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: name, VendorVersion: "testbed"}, nil
}

func (d *driver) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (d *driver) NodePublishVolume(
	_ context.Context, request *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	switch {
	case request.VolumeContext["csi.storage.k8s.io/ephemeral"] != "true":
		return nil, status.Error(codes.InvalidArgument, "only ephemeral volumes are supported")
	case !request.Readonly:
		return nil, status.Error(codes.InvalidArgument, "pod.spec.volumes[].csi.readOnly must be true")
	}
	if err := os.Mkdir(request.TargetPath, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := unix.Mount(d.sockets, request.TargetPath, "", unix.MS_BIND, ""); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *driver) NodeUnpublishVolume(
	_ context.Context, request *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unix.Unmount(request.TargetPath, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
