#!/usr/bin/env bash
# A Debian bookworm image with Python 3.11, for machines where python:3.11-slim-bookworm cannot be pulled.
# Usage (root, with debootstrap and a running dockerd): images/debian-base.sh IMAGE:TAG
# DEBIAN_MIRROR names another mirror than debootstrap's own; nothing of it stays in the image.
set -euo pipefail
image=${1:?usage: images/debian-base.sh IMAGE:TAG}
content=$(sha256sum "$0" | cut -d' ' -f1) # an image of an older script is made anew (images/debian.py)
packages=ca-certificates,python3.11,libpython3.11-stdlib
packages+=,libibverbs1,ibverbs-providers # NCCL opens them at run time: without them nodes talk over TCP, not InfiniBand
packages+=,gcc,libc6-dev,libpython3.11-dev # for Triton

say() { printf '[debian-base] %s\n' "$*" >&2; }
fail() { printf '[debian-base] %s\n' "$*" >&2; exit 2; }

command -v debootstrap > /dev/null || fail "debootstrap is missing. Install it (Debian: apt-get install debootstrap)," \
    "or give an image with Python 3.11: make images BASE_IMAGE=python:3.11-slim-bookworm"
[ "$(id -u)" = 0 ] || fail "debootstrap needs root. Start this as root, or give BASE_IMAGE."

root=$(mktemp -d -t vl3-debian.XXXXXX)
leave() { # a half-made system may still have /proc and /sys mounted
    local mounted
    for mounted in "$root/proc" "$root/sys"; do if mountpoint -q "$mounted"; then umount -l "$mounted"; fi; done
    rm -rf --one-file-system "$root"
}
trap leave EXIT

say "debootstrap bookworm (about a minute)"
debootstrap --variant=minbase --include="$packages" bookworm "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} > "$root.log" 2>&1 \
    || { tail -n 5 "$root.log" >&2; fail "debootstrap failed, see above and $root.log. Check the mirror (DEBIAN_MIRROR)."; }
for mounted in "$root/proc" "$root/sys"; do if mountpoint -q "$mounted"; then umount -l "$mounted"; fi; done

cd "$root"
ln -sf python3.11 usr/bin/python3
# What a container never reads: documents, translations, time of installation, package lists, firmware of the boot.
find usr/share/doc -type f ! -name copyright -delete
rm -rf usr/share/{man,info,locale,lintian,bash-completion,zoneinfo/right} usr/lib/python3*/{test,ensurepip,idlelib}
rm -rf var/cache/* var/lib/apt/lists/* var/log/* debootstrap etc/{hostname,resolv.conf,machine-id} root/.??*
find usr/lib/x86_64-linux-gnu/gconv -type f ! -name 'UTF-*' ! -name 'UNICODE*' ! -name 'ISO8859-1*' ! -name 'gconv-*' -delete
find . -xdev -name __pycache__ -prune -exec rm -rf {} +
chroot . /usr/bin/python3.11 -m compileall -q -j 2 --invalidation-mode unchecked-hash /usr/lib/python3.11 || true

say "importing as $image"
tar --sort=name --mtime=@0 --numeric-owner --one-file-system --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -c . \
    | docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV LANG=C.UTF-8' --change "LABEL vl3.dev/content=$content" - "$image" > /dev/null
rm -f "$root.log"
say "$image: $(docker image inspect -f '{{.Size}}' "$image" | numfmt --to=si)B"
