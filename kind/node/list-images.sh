#!/bin/bash
# Runs in a node: one line of JSON for each image, with its ID and its layers from the bottom. The ID is that of Docker,
# the digest of the configuration; what `ctr images ls` shows is the digest of the manifest.
set -eu
blobs=/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256
ctr --namespace k8s.io images ls | awk 'NR > 1 && $1 !~ /@|^sha256:/ {print $1, $3}' | while read -r name digest; do
  jq -c --arg name "$name" '{name: $name, id: .config.digest, layers: [.layers[] | {digest, size}]}' "$blobs/${digest#*:}"
done
