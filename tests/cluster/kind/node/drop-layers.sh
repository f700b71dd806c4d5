#!/bin/bash
# Runs in a node: frees the packed layers of images that are unpacked now; the kubelet needs only the unpacked form.
# Usage: drop-layers.sh IMAGE...
set -eu
for image; do
  manifest=$(ctr --namespace k8s.io images ls "name==$image" | awk 'NR == 2 {print $3}')
  ctr --namespace k8s.io content get "$manifest" | jq -r '.layers[].digest'
done | sort -u | while read -r layer; do
  ctr --namespace k8s.io content rm "$layer" > /dev/null 2>&1 || true # shared with an image that was loaded before
done
