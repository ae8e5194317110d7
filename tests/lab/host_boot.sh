#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Boots one host of the lab. Stage "enter" takes the host's cgroup and makes its namespaces; stage "boot" says its pid,
# waits for its network, changes into the host's root and becomes systemd.
#   host_boot.sh enter CGROUP ROOT NAME BOOT_ID
set -eu
stage=$1
if [ "$stage" = enter ]; then
    shift
    echo 0 > "$1/cgroup.procs"
    exec unshare --fork --pid --kill-child=SIGKILL --mount --propagation private --net --uts --ipc --cgroup \
        -- /bin/sh "$0" boot "$@"
fi
root=$3 name=$4 boot_id=$5
# /proc is still that of the machine, so this is the pid as seen from there.
read -r pid rest < /proc/self/stat
echo "$pid"
read -r word
[ "$word" = go ]
exec < /dev/null > /dev/null
hostname "$name"
cd "$root"
mount -t proc -o nosuid,nodev,noexec proc proc
# Settings of the network belong to the host, all others to the machine beneath: hosts may read those only.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,rw proc/sys/net
if [ -e proc/sysrq-trigger ]; then
    mount --bind proc/sysrq-trigger proc/sysrq-trigger
    mount -o remount,bind,ro proc/sysrq-trigger
fi
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,nosuid,size=32m tmpfs dev
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=1777,nosuid,nodev,size=64m tmpfs dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev,size=64m tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev,size=256m tmpfs tmp
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
echo "$boot_id" > run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
rm run/boot_id
pivot_root . mnt
# No host may set the machine's clock, load modules or touch its ports.
exec chroot . /bin/sh -c 'umount -l /mnt && exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog --inh-caps=-all /lib/systemd/systemd 2> /dev/null'
