#!/bin/sh
# Block hotplug script for xl (disk=["..., script=block-lab, target=/dev/X"]):
# tells blkback which device to serve; needs no losetup, flock or udev.
export PATH=/bin:/sbin LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu
if [ "$1" = add ]; then
    device=$(xenstore-read "$XENBUS_PATH/params")
    xenstore-write "$XENBUS_PATH/physical-device-path" "$device"
    xenstore-write "$XENBUS_PATH/physical-device" "$(stat -L -c '%t:%T' "$device")"
    xenstore-write "$XENBUS_PATH/hotplug-status" connected
fi
exit 0
