package validate

import (
	"testing"

	"github.com/sallyport/sallyport/api/crds"
	"github.com/sallyport/sallyport/internal/validate/validatetest"
)

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		for _, file := range []string{"projectcalico.org_ippools.yaml", "sallyport.dev_natconfigurations.yaml"} {
			if _, err := compile(crds.Files(), file); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkCreatePool(b *testing.B) {
	v := newValidator(b)
	obj := decode(b, validatetest.Pool("{cidr: 10.244.0.0/16, natOutgoing: true, blockSize: 26, vxlanMode: Always, nodeSelector: zone == 'a', allowedUses: [Workload, Tunnel]}"))
	b.ReportAllocs()
	for b.Loop() {
		if faults := v.Create(obj); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}

func BenchmarkCreateSmallPool(b *testing.B) {
	v := newValidator(b)
	obj := decode(b, validatetest.Pool("{cidr: 10.244.0.0/16, natOutgoing: true}"))
	b.ReportAllocs()
	for b.Loop() {
		if faults := v.Create(obj); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}

func BenchmarkCreateParallel(b *testing.B) {
	v := newValidator(b)
	obj := decode(b, validatetest.Pool("{cidr: 10.244.0.0/16, natOutgoing: true}"))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v.Create(obj)
		}
	})
}
