#!/bin/bash
# Runs in a node: one line of JSON for each image that is unpacked there, its layers from the bottom with their sizes.
set -eu
ctr --namespace k8s.io images ls | awk 'NR > 1 && $1 !~ /@|^sha256:/ {print $3}' | sort -u | while read -r digest; do
  manifest=$(ctr --namespace k8s.io content get "$digest")
  top=$(ctr --namespace k8s.io content get "$(jq -r .config.digest <<< "$manifest")" | jq -c .rootfs.diff_ids)
  # Packed layers have other digests than their contents: those are of no use here.
  jq -c --argjson contents "$top" 'select([.layers[].digest] == $contents) | [.layers[] | {digest, size}]' <<< "$manifest"
done
