#!/bin/bash
# Pod network of the kind nodes: a route to each other node's pod range, and the range of this node for the CNI plugins.
# kind's own kindnetd cannot be built here (its module is not published).
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
  {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state",
   "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": "$1"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  mv "$configuration.new" "$configuration"
}

# One watch instead of polling: kubectl costs a quarter of a second of processor time each time it starts.
# Simulated nodes (label type=kwok) have no pods that could be reached.
nodes='{.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}'
masquerade
while true; do
  while read -r range address; do
    [ -n "${address:-}" ] && [ "${routed[$range]:-}" != "$address" ] || continue
    if [ "$address" = "$HOST_IP" ]; then write_configuration "$range"; else ip route replace "$range" via "$address"; fi
    routed[$range]=$address
  done < <(kubectl get nodes --selector 'type!=kwok' --watch --output "jsonpath=$nodes" 2>/dev/null)
  sleep 1
done
