#!/bin/sh
# The first process of a node. It is started in new mount, UTS and PID namespaces and in the node's network namespace,
# makes the rest, and becomes the program pause, which waits until it is killed.
#
#   init.sh NAME ROOT PROGRAMS SHARED CGROUPS HIERARCHIES BOOT
#
# ROOT is the directory of the node's file system; PROGRAMS and SHARED are those that it sees in /programs and /shared;
# CGROUPS are the directories of the node's cgroups; HIERARCHIES say how each is mounted, as DIRECTORY:OPTIONS; BOOT is
# the id of this boot.
set -eu
name=$1 root=$2 programs=$3 shared=$4 cgroups=$5 hierarchies=$6 boot=$7

if [ -z "${IN_CGROUPS:-}" ]; then
	for dir in $cgroups; do echo 0 >"$dir/cgroup.procs"; done
	IN_CGROUPS=yes exec unshare --cgroup sh "$0" "$@" # from now on they look like the machine's whole hierarchies
fi

mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount --bind -o ro /usr usr
mount --bind -o ro "$programs" programs
mount --bind -o ro "$shared" shared
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=0755 tmpfs sys/fs/cgroup
for h in $hierarchies; do
	mkdir "sys/fs/cgroup/${h%%:*}"
	mount -t cgroup -o "${h#*:}" cgroup "sys/fs/cgroup/${h%%:*}"
done

# Settings that all of the machine shares stay as they are, and kubelet finds those that it would make.
for dir in vm kernel; do mount --bind -o ro "proc/sys/$dir" "proc/sys/$dir"; done
mkdir -p run/settings
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000 "kernel/random/boot_id=$boot"; do
	file=${setting%%=*}
	if [ -e "proc/sys/$file" ]; then
		echo "${setting#*=}" >"run/settings/${file##*/}"
		mount --bind "run/settings/${file##*/}" "proc/sys/$file"
	fi
done

hostname "$name"
pivot_root . mnt
cd /
umount -l /mnt
mount --make-rshared /
exec env -i /programs/pause
