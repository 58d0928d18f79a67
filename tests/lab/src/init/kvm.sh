#!/bin/busybox sh
# PID 1 of the lab's KVM host: loads KVM, then runs the agent.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu HOME=/root TERM=linux
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mkdir -p /dev/pts; mount -t devpts none /dev/pts; mount -t tmpfs none /tmp; mount -t tmpfs none /run
for m in kvm_amd virtio_pci virtio_blk virtio_console; do
    modprobe $m || echo "LAB: modprobe $m failed"
done
# Where a guest's processor was when it shut down: KVM resets it before it tells.
mount -t tracefs none /sys/kernel/tracing
cd /sys/kernel/tracing/events/kvm/kvm_exit && echo 'exit_reason == 0x7f' >filter && echo 1 >enable
cd /
SHELL_TTY=hvc0
. /etc/lab/common.sh
