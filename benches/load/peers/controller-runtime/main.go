// A defaulter of controller-runtime that grants what devgrant grants a pod that asks for fuse: the
// resource, SYS_ADMIN, AppArmor Unconfined, NVIDIA_VISIBLE_DEVICES=void and a stamp.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"log"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	ask   = "devices.example/fuse"
	stamp = "devices.example/granted"
	fuse  = corev1.ResourceName("smarter-devices/fuse")
)

type defaulter struct{}

func (defaulter) Default(_ context.Context, pod *corev1.Pod) error {
	if pod.Annotations[ask] != "true" || len(pod.Spec.Containers) == 0 {
		return nil
	}
	container := &pod.Spec.Containers[0]
	one := resource.MustParse("1")
	if container.Resources.Limits == nil {
		container.Resources.Limits = corev1.ResourceList{}
	}
	if container.Resources.Requests == nil {
		container.Resources.Requests = corev1.ResourceList{}
	}
	container.Resources.Limits[fuse] = one
	container.Resources.Requests[fuse] = one
	if container.SecurityContext == nil {
		container.SecurityContext = &corev1.SecurityContext{}
	}
	security := container.SecurityContext
	if security.Capabilities == nil {
		security.Capabilities = &corev1.Capabilities{}
	}
	security.Capabilities.Add = append(security.Capabilities.Add, "SYS_ADMIN")
	security.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	container.Env = append(container.Env, corev1.EnvVar{Name: "NVIDIA_VISIBLE_DEVICES", Value: "void"})
	pod.Annotations[stamp] = `{"grants":[{"device":"fuse","mode":"mount","count":1,"containers":["` +
		container.Name + `"],"policy":"fuse"}]}`
	return nil
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9443", "HTTPS address")
	certificate := flag.String("cert", "", "certificate, PEM")
	key := flag.String("key", "", "private key, PEM")
	flag.Parse()
	ctrllog.SetLogger(zap.New())
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		log.Fatal(err)
	}
	hook := admission.WithDefaulter[*corev1.Pod](scheme, defaulter{})
	handler, err := admission.StandaloneWebhook(hook, admission.StandaloneOptions{MetricsPath: "mutate"})
	if err != nil {
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.Handle("/mutate", handler)
	// As controller-runtime's own server has it (pkg/internal/httpserver), and HTTP/1.1 as for everybody here.
	server := &http.Server{
		Addr:              *listen,
		Handler:           routes,
		MaxHeaderBytes:    1 << 20,
		IdleTimeout:       90 * time.Second,
		ReadHeaderTimeout: 32 * time.Second,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
	}
	log.Fatal(server.ListenAndServeTLS(*certificate, *key))
}
