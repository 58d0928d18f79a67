#!/bin/busybox sh
# PID 1 of the lab's dom0: brings Xen's tool stack up, then runs the agent.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/lib/xen-4.20/bin LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu HOME=/root TERM=linux
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mkdir -p /dev/pts; mount -t devpts none /dev/pts; mount -t tmpfs none /tmp; mount -t tmpfs none /run
mkdir -p /run/xen /run/xenstored /run/xen-hotplug /var/lock; rm -rf /var/run; ln -s /run /var/run
for m in xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs xen-blkback virtio_pci virtio_blk virtio_console; do
    modprobe $m || echo "LAB: modprobe $m failed"
done
mount -t xenfs none /proc/xen
xenstored --pid-file /run/xenstored.pid && xen-init-dom0 && xenconsoled --log=guest --log-dir=/var/log/xen || echo "LAB: the tool stack failed"
echo "autoballoon=0" >/etc/xen/xl.conf
SHELL_TTY=hvc1
. /etc/lab/common.sh
