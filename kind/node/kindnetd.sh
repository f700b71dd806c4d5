#!/bin/bash
# Pod network of the kind nodes: a route to each other node's pod range, and the range of this node for the CNI plugins.
# kind's own kindnetd cannot be built here (its module is not published). The plugin is Calico's, because Felix, which
# runs beside this and enforces the network policies, finds the pods by the interfaces that it makes.
set -u
configuration=/etc/cni/net.d/10-kindnet.conflist
declare -A routed

masquerade() { # what leaves the pod network takes the node's address
  iptables -w -t nat -N KIND-MASQ 2>/dev/null
  iptables -w -t nat -F KIND-MASQ
  iptables -w -t nat -A KIND-MASQ -d "$POD_SUBNET" -j RETURN
  iptables -w -t nat -A KIND-MASQ -j MASQUERADE
  iptables -w -t nat -C POSTROUTING -s "$POD_SUBNET" -j KIND-MASQ 2>/dev/null ||
    iptables -w -t nat -A POSTROUTING -s "$POD_SUBNET" -j KIND-MASQ
}

write_configuration() { # RANGE
  cat > "$configuration.new" <<JSON
{"cniVersion": "0.4.0", "name": "kindnet", "plugins": [
  {"type": "calico", "datastore_type": "kubernetes", "nodename": "$NODE_NAME", "nodename_file_optional": true, "mtu": 1500, "log_level": "warning",
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": [[{"subnet": "$1"}]]},
   "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": "/etc/kubernetes/kubelet.conf"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  mv "$configuration.new" "$configuration"
}

prepare_calico() { # what Calico keeps in the API; both wait for it
  until kubectl get clusterinformations.crd.projectcalico.org default > /dev/null 2>&1; do
    kubectl apply --server-side --force-conflicts --filename /usr/local/share/calico-definitions > /dev/null &&
      kubectl wait crd --all --for=condition=Established --timeout=10s > /dev/null &&
      kubectl apply --server-side --force-conflicts --filename - << 'YAML' && return
apiVersion: crd.projectcalico.org/v1
kind: ClusterInformation
metadata: {name: default}
spec: {clusterType: k8s, datastoreReady: true}
YAML
    sleep 1
  done
}

# One watch instead of polling: kubectl costs a quarter of a second of processor time each time it starts.
# Simulated nodes (label type=kwok) have no pods that could be reached.
nodes='{.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}'
masquerade
prepare_calico
while true; do
  while read -r range address; do
    [ -n "${address:-}" ] && [ "${routed[$range]:-}" != "$address" ] || continue
    if [ "$address" = "$HOST_IP" ]; then write_configuration "$range"; else ip route replace "$range" via "$address"; fi
    routed[$range]=$address
  done < <(kubectl get nodes --selector 'type!=kwok' --watch --output "jsonpath=$nodes" 2>/dev/null)
  sleep 1
done
