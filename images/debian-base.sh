#!/usr/bin/env bash
# A Debian bookworm image with Python 3.11, for machines where python:3.11-slim-bookworm cannot be pulled.
# Usage (root, with debootstrap and a running dockerd): images/debian-base.sh IMAGE:TAG COMPILER:TAG
# COMPILER gets a C compiler's files alone, for the images with torch: Triton compiles a stub for each fused kernel.
# DEBIAN_MIRROR names another mirror than debootstrap's own; nothing of it stays in the image.
set -euo pipefail
image=${1:?usage: images/debian-base.sh IMAGE:TAG COMPILER:TAG}
compiler_image=${2:?usage: images/debian-base.sh IMAGE:TAG COMPILER:TAG}
content=$(sha256sum "$0" | cut -d' ' -f1) # an image of an older script is made anew (images/debian.py)
packages=ca-certificates,python3.11,libpython3.11-stdlib
packages+=,libibverbs1,ibverbs-providers # NCCL opens them at run time: without them nodes talk over TCP, not InfiniBand
compiler=gcc,libc6-dev,libpython3.11-dev

say() { printf '[debian-base] %s\n' "$*" >&2; }
fail() { printf '[debian-base] %s\n' "$*" >&2; exit 2; }

command -v debootstrap > /dev/null || fail "debootstrap is missing. Install it (Debian: apt-get install debootstrap)," \
    "or give an image with Python 3.11: make images BASE_IMAGE=python:3.11-slim-bookworm"
[ "$(id -u)" = 0 ] || fail "debootstrap needs root. Start this as root, or give BASE_IMAGE."

root=$(mktemp -d -t vl3-debian.XXXXXX)
leave() { # a half-made system may still have /proc and /sys mounted
    local mounted
    for mounted in "$root/proc" "$root/sys"; do if mountpoint -q "$mounted"; then umount -l "$mounted"; fi; done
    rm -rf --one-file-system "$root" "$root.names"
}
trap leave EXIT

names() { # names of all packages that belong to those asked for
    debootstrap --variant=minbase --print-debs --include="$1" bookworm "$root.names" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} \
        2> "$root.log" | tr ' ' '\n' | sed '/^$/d' | sort
}

say "debootstrap bookworm (about a minute)"
names "$packages" > "$root.base"
names "$packages,$compiler" | comm -13 "$root.base" - > "$root.compiler"
debootstrap --variant=minbase --include="$packages,$compiler" bookworm "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} > "$root.log" 2>&1 \
    || { tail -n 5 "$root.log" >&2; fail "debootstrap failed, see above and $root.log. Check the mirror (DEBIAN_MIRROR)."; }
for mounted in "$root/proc" "$root/sys"; do if mountpoint -q "$mounted"; then umount -l "$mounted"; fi; done

pack() { # IMAGE: import the files of the tar on standard input
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV LANG=C.UTF-8' --change "LABEL vl3.dev/content=$content" - "$1" > /dev/null
    say "$1: $(docker image inspect -f '{{.Size}}' "$1" | numfmt --to=si)B"
}
tar_options=(--sort=name --mtime=@0 --numeric-owner --one-file-system)

cd "$root"
# The base has no compiler: its files go into an image of their own (under /usr, where /lib and /bin are links to).
xargs dpkg --root="$root" -L < "$root.compiler" | sed -E 's,^/(lib|lib64|bin|sbin)/,/usr/\1/,; s,^/,,' \
    | grep -vE '^usr/share/(man|info|locale|lintian|bash-completion)(/|$)' | sort -u \
    | while read -r path; do if [ -L "$path" ] || [ -f "$path" ]; then echo "$path"; fi; done > "$root.files"
tar "${tar_options[@]}" --no-recursion --files-from "$root.files" -c . | pack "$compiler_image"
xargs chroot . dpkg --purge --force-depends < "$root.compiler" > "$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; fail "see above"; }

ln -sf python3.11 usr/bin/python3
# What a container never reads: documents, translations, time of installation, package lists, firmware of the boot.
find usr/share/doc -type f ! -name copyright -delete
rm -rf usr/share/{man,info,locale,lintian,bash-completion,zoneinfo/right} usr/lib/python3*/{test,ensurepip,idlelib}
rm -rf var/cache/* var/lib/apt/lists/* var/log/* debootstrap etc/{hostname,resolv.conf,machine-id} root/.??*
find usr/lib/x86_64-linux-gnu/gconv -type f ! -name 'UTF-*' ! -name 'UNICODE*' ! -name 'ISO8859-1*' ! -name 'gconv-*' -delete
find . -xdev -name __pycache__ -prune -exec rm -rf {} +
chroot . /usr/bin/python3.11 -m compileall -q -j 2 --invalidation-mode unchecked-hash /usr/lib/python3.11 || true

tar "${tar_options[@]}" --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -c . | pack "$image"
rm -f "$root".{log,base,compiler,files}
