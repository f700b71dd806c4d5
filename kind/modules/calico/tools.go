//go:build tools
package tools
import _ "github.com/projectcalico/calico/cni-plugin/cmd/calico"
import _ "github.com/projectcalico/calico/felix/cmd/calico-felix"
