#!/bin/busybox sh
# PID 1 of the small Linux guest that firn is compared with: reads its disk
# first thing, then gives a prompt on the console.
b=/bin/busybox
$b mount -t proc none /proc; $b mount -t devtmpfs none /dev
export PATH=/bin:/sbin LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu HOME=/root TERM=linux
$b modprobe xen-blkfront || echo "GUEST: modprobe xen-blkfront failed"
n=0; while [ ! -e /dev/xvda ] && [ $n -lt 100 ]; do $b sleep 0.01; n=$((n + 1)); done
$b dd if=/dev/xvda of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null
read -r up idle </proc/uptime
echo "GUEST: first read after $up s"
$b --install -s /bin
mount -t sysfs none /sys; mount -t tmpfs none /tmp
echo "GUEST: ready"
stty -echo </dev/hvc0
setsid -c sh -l </dev/hvc0 >/dev/hvc0 2>&1
poweroff -f
