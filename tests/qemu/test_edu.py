"""The teaching device: registers, an interrupt and DMA, driven from a shell.

Linux has no driver for it. uio_pci_generic takes its interrupt, by INTx, and devmem reaches its
registers.
"""

from __future__ import annotations

from qemulab.hosting import Server, attached
from qemulab.machine import SCRATCH, Machine

DRIVE = f"""
cd /sys/bus/pci/devices/0000:01:00.0
[ "$(cat vendor) $(cat device)" = "0x1234 0x11e8" ]
echo 1234 11e8 > /sys/bus/pci/drivers/uio_pci_generic/new_id 2> /dev/null || true
set_command() {{ printf "$1" | dd of=config bs=1 seek=4 conv=notrunc 2> /dev/null; }}
set_command '\\002\\000'  # memory; INTx isn't masked
bar=$(head -n 1 resource | cut -d ' ' -f 1)
at() {{ printf '0x%x' $((bar + $1)); }}
get() {{ devmem $(at $1) 32; }}
put() {{ devmem $(at $1) 32 $2; }}
is() {{ [ $(($1)) = $(($2)) ] || {{ echo "$1 isn't $2"; exit 1; }}; }}

is $(get 0x00) 0x010000ed
put 0x04 0x12345678
is $(get 0x04) 0xedcba987

# A factorial, and an interrupt when it is done.
(dd if=/dev/uio0 bs=4 count=1 2> /dev/null | xxd -p > /run/interrupts) &
put 0x20 0x80
put 0x08 5
wait
is $(get 0x08) 120
is $(get 0x24) 1
put 0x64 1
is $(get 0x24) 0
[ $(cat /run/interrupts) = 01000000 ]

# Four bytes from RAM into the device's buffer, and out again to another place. The device is a
# bus master from here on only: closing /dev/uio0 ends that.
set_command '\\006\\000'
devmem {SCRATCH:#x} 32 0xc0ffee11
devmem {SCRATCH + 0x100:#x} 32 0
dma() {{
    put 0x80 $1
    put 0x88 $2
    put 0x90 4
    put 0x98 $3
    for try in $(seq 200); do
        [ $(( $(get 0x98) & 1 )) = 0 ] && return
        usleep 10000
    done
    return 1
}}
dma {SCRATCH:#x} 0x40000 1
dma 0x40000 {SCRATCH + 0x100:#x} 3
is $(devmem {SCRATCH + 0x100:#x} 32) 0xc0ffee11
"""


def test_it_computes_interrupts_and_moves_memory(machine: Machine, server: Server) -> None:
    with attached(machine, server, "edu", "edu0"):
        machine.guest.wait_until("test -e /sys/bus/pci/devices/0000:01:00.0/config")
        machine.guest.run(DRIVE)
