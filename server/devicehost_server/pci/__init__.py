"""A device as a PCI function: its configuration space, its BARs and its interrupts, as state.

Nothing here does I/O. `function.PciFunction` is made from what a device says of itself and
from its constraints; an endpoint lets a client at it.

    | module       | what is in it                                                     |
    |--------------|-------------------------------------------------------------------|
    | function     | `PciFunction`: all of it together                                 |
    | bars         | `Bar`, `lay_out`: which constraint is behind which BAR            |
    | config_space | `ConfigSpace`: the header and the list of capabilities            |
    | capability   | `Capability`: what stands in that list; the vendor's own          |
    | msi, msix    | the two kinds of messages: capability, masks, pending bits        |
    | interrupts   | `Vectors`: from the device's interrupts to INTx, MSI and MSI-X    |
"""
