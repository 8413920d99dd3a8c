#!/bin/busybox sh
# The guest's first process: what the host sends is run, and how that ended is said.
#
# ttyS0 has the kernel's messages, ttyS1 the commands. A command is one line: a token, a space,
# a script in base64, which ends at the first command in it that fails. What it writes comes back
# as it is written, then a line of its own with the token and the exit status.

/bin/busybox mkdir -p /dev /mnt /proc /run /sys /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir /dev/pts
mount -t devpts pts /dev/pts
ln -s /proc/self/fd /dev/fd
export HOME=/tmp

# $modules is from the kernel's command line, as is all there that the kernel doesn't know.
for module in $(echo "$modules" | tr , ' '); do
    modprobe "$module" || echo "<1>init: no module $module" > /dev/kmsg
done

# A child, for process 1 gets a signal whenever some process without a parent ends, and a `read`
# that is interrupted loses what it has read.
commands() {
    stty raw -echo
    echo ready
    while read -r token encoded; do
        echo "$encoded" | base64 -d > /run/command
        sh -e /run/command < /dev/null
        status=$?
        printf '\n%s %d\n' "$token" "$status"
    done
}
commands < /dev/ttyS1 > /dev/ttyS1 2>&1 &
while :; do
    wait
done
