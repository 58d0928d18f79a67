# The end of both start-ups. Disks get their serial number as name, a person
# gets a prompt on the second port, programs get the agent. When the machine
# that drives the lab hangs up, the agent ends and the lab powers off.
mkdir -p /dev/firn
for b in /sys/block/vd*; do
    [ -e "$b/serial" ] && ln -s "/dev/${b##*/}" "/dev/firn/$(cat "$b/serial")"
done
(while :; do setsid -c sh -l <"/dev/$SHELL_TTY" >"/dev/$SHELL_TTY" 2>&1; sleep 1; done) &
echo "LAB: ready after $(cut -d' ' -f1 /proc/uptime) s"
/bin/firn-lab-agent || echo "LAB: the agent failed"
poweroff -f
