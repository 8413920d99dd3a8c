"""A VM and its device server, brought together.

    attach(vm, host)
    vcpu.run(host.vcpu(0))

The devices get the VM's memory, and their interrupts reach the guest. On the same host
both need none of the VMM's code: the memory is mapped, and the interrupts are eventfds that
KVM listens to. Over gRPC there is no way to share memory, and interrupts are calls.
"""

from __future__ import annotations

from devicehost_client.adapters.kvm.vm import GSI_COUNT, Vm
from devicehost_client.host import DeviceHost


def attach(vm: Vm, host: DeviceHost) -> None:
    """Hand a VM's memory and interrupt lines to its devices, now and after each restart.

    Eventfds make edges, as the lines of a PC's ISA bus do. A VM whose devices share lines
    that the guest reads as levels calls `host.interrupts.start` instead.

    Args:
        vm: the VM; its memory is mapped already.
        host: where its devices are.

    Raises:
        ClientError: the server doesn't take it, or is gone.
    """
    if not host.interrupts.takes_eventfds:
        if vm.has_irqchip:
            host.interrupts.start(on_level=vm.set_irq_line)
        return
    for slot in vm.memory.slots:
        host.memory.add(
            slot.base,
            slot.size,
            slot.region.fd,
            offset=slot.offset,
            writable=not slot.read_only,
        )
    if vm.has_irqchip:
        host.interrupts.attach({gsi: vm.add_irqfd(gsi) for gsi in range(GSI_COUNT)})
