#!/bin/sh
# bare_transaction.sh BASE OVERLAY OFFSET REPOSITORY PACKAGE BASE_REPOSITORY...
# What one would do by hand, as root: an overlay, its root file system mounted, dnf, unmounted again.
set -eu
base=$1 overlay=$2 offset=$3 repository=$4 package=$5
shift 5
work=$(mktemp -d)
trap 'kill $(cat "$work/pid") 2>/dev/null || :' EXIT
touch "$work/disk"
mkdir "$work/root"
qemu-img create -q -f qcow2 -F qcow2 -b "$base" "$overlay"
qemu-storage-daemon --blockdev "driver=file,filename=$overlay,node-name=file,cache.no-flush=on" \
    --blockdev driver=qcow2,file=file,node-name=image,cache.no-flush=on \
    --export "type=fuse,id=export,node-name=image,mountpoint=$work/disk,writable=on" --pidfile "$work/pid" &
until [ -s "$work/pid" ]; do sleep 0.01; done
mount -o "loop,offset=$offset" "$work/disk" "$work/root"
mount -t proc proc "$work/root/proc"
mount --bind /dev "$work/root/dev"

export HOME="$work"
echo '%_dbpath /var/lib/rpm' > "$work/.rpmmacros"
printf '[main]\ngpgcheck=0\nplugins=0\nreposdir=%s\n[under-test]\nname=under-test\nbaseurl=file://%s\npriority=1\n' \
    "$work/none" "$repository" > "$work/dnf.conf"
number=0
for place; do
    printf '[base-%s]\nname=base-%s\nbaseurl=file://%s\n' "$number" "$number" "$place" >> "$work/dnf.conf"
    number=$((number + 1))
done
dnf -y -c "$work/dnf.conf" --installroot="$work/root" --releasever=12 --setopt=install_weak_deps=0 \
    --setopt=cachedir=/run/cache --setopt=logdir=/run/log install "$package"
chroot "$work/root" rpm -q "$package"
rm -rf "$work/root/run/cache" "$work/root/run/log"

umount "$work/root/dev" "$work/root/proc" "$work/root"
kill "$(cat "$work/pid")"
wait
trap - EXIT
rm -rf "$work"
