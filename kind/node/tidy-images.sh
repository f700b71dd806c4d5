#!/bin/bash
# Runs in a node after images were loaded: frees what nothing needs any more.
# Usage: tidy-images.sh IMAGE...
set -eu
ctr="ctr --namespace k8s.io"

# The packed layers of the images that were loaded: the kubelet needs only the unpacked form.
for image; do
  manifest=$($ctr images ls "name==$image" | awk 'NR == 2 {print $3}')
  $ctr content get "$manifest" | jq -r '.layers[].digest'
done | sort -u | while read -r layer; do
  $ctr content rm "$layer" > /dev/null 2>&1 || true # shared with an image that was loaded before
done

# Images whose name went to a newer one live on under their ID and keep gigabytes.
$ctr images ls | awk '
  NR == 1 {next}
  $1 ~ /^sha256:|^import-.*@/ {nameless[$1] = $3; next}
  {named[$3] = 1}
  END {for (name in nameless) if (!(nameless[name] in named) || name ~ /^import-/) print name}' |
  while read -r name; do $ctr images rm "$name" > /dev/null; done
