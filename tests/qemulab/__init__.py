"""A stock QEMU with a stock Linux in it, to attach devices to.

    environment = provide()
    with running(environment, folder, devices=[{"driver": "edu", "id": "edu0"}]) as machine:
        machine.guest.run("cat /sys/bus/pci/devices/0000:00:01.0/vendor")
        machine.qmp.device_del("edu0")

- `packages`, `environment`: Debian's packages of QEMU and a kernel, unpacked into a folder;
- `archive`, `initramfs`, init.sh: what the guest boots;
- `machine`: a QEMU process, with `qmp` to control it and `guest` to run commands inside;
- `hosting`: a server whose devices QEMU attaches to; `terminal`: the host's end of a line;
- `compare`: how fast our disk is beside QEMU's.
"""
