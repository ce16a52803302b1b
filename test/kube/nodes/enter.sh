#!/bin/sh
# Runs a program on a node: enter.sh PID CGROUPS PROGRAM [ARGUMENT...], where PID is the node's first process and CGROUPS
# are the directories of the node's cgroups. Started in the node's network and PID namespaces.
set -eu
pid=$1 cgroups=$2
shift 2
for dir in $cgroups; do echo 0 >"$dir/cgroup.procs"; done
exec nsenter --mount="/proc/$pid/ns/mnt" --uts="/proc/$pid/ns/uts" --cgroup="/proc/$pid/ns/cgroup" -- "$@"
