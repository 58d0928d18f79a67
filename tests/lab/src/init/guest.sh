#!/bin/busybox sh
# PID 1 of the small Linux guest that firn is compared with: gives a prompt on
# the console.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu HOME=/root TERM=linux
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev; mount -t tmpfs none /tmp
modprobe xen-blkfront || echo "GUEST: modprobe xen-blkfront failed"
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/xvda ] && break; sleep 0.1; done
echo "GUEST: ready after $(cut -d' ' -f1 /proc/uptime) s"
stty -echo </dev/hvc0
setsid -c sh -l </dev/hvc0 >/dev/hvc0 2>&1
poweroff -f
