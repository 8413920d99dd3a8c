"""The interrupts of a function as eventfds, and as messages: VFIO's five indexes.

    index   what        subindexes      can be masked
    0       INTx        1 with a pin    yes; is masked by each signal
    1       MSI         its vectors     yes
    2       MSI-X       its vectors     yes
    3       error       1               no
    4       request     1               no

When a vector is signalled, and what waits for what, is said in `devicehost_server.pci`
(`interrupts`, `messages`). An error is never signalled: there are none to tell. A request
is, once, when the function is to be unplugged: a VMM asks the guest then to let it go.
QEMU 11 does so for the devices of VFIO in the kernel, but connects no request for those of
vfio-user (hw/vfio-user/pci.c has no `x-req`): it is cut off, unless `device_del` came first.

As with VFIO, an eventfd given to UNMASK is one to listen to (`unmasking`), and one given to
MASK isn't taken. TRIGGER with bools or without data signals an eventfd that is connected,
whatever is masked: a client tries its own wiring so.

Source: Linux, uapi/linux/vfio.h and drivers/vfio/pci/vfio_pci_intrs.c, for what the
combinations mean.
"""

from __future__ import annotations

import threading
from errno import EINVAL, ENOTTY
from typing import Final

from devicehost.vfio_user import IrqAction, IrqData, IrqFlags, IrqInfo, SetIrqs
from devicehost_server.endpoints.eventfds import EventFds
from devicehost_server.endpoints.irqfds import chosen
from devicehost_server.endpoints.refused import Refused
from devicehost_server.endpoints.unmasking import Unmasking
from devicehost_server.pci.interrupts import IrqKind, Vectors

IRQ_ERR: Final = 3
IRQ_REQ: Final = 4
IRQ_COUNT: Final = 5

_INTX_FLAGS = IrqFlags.EVENTFD | IrqFlags.MASKABLE | IrqFlags.AUTOMASKED
_MESSAGE_FLAGS = IrqFlags.EVENTFD | IrqFlags.MASKABLE
_KINDS = {int(kind): kind for kind in IrqKind}
_INDEX_SHIFT = 16  # a number of an eventfd: its index and its subindex


class PciIrqs:
    """What one client has connected to the interrupts of a function.

    Args:
        vectors: the function's.
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        # The vectors are signalled under their lock, which `settle` takes.
        self._fds = EventFds(settle=vectors.settle)
        self._lock = threading.Lock()  # of the next two
        self._unmasking: Unmasking | None = None
        self._closed = False
        vectors.attach(self._signal)

    def info(self, index: int) -> IrqInfo:
        """Say how many interrupts an index has, and what they can do.

        Raises:
            Refused: there is no such index.
        """
        count = self._count(index)
        if index == IrqKind.INTX:
            return IrqInfo(_INTX_FLAGS, count)
        if index in (IRQ_ERR, IRQ_REQ):
            return IrqInfo(IrqFlags.EVENTFD, count)
        return IrqInfo(_MESSAGE_FLAGS, count)

    def apply(self, request: SetIrqs, fds: tuple[int, ...]) -> bool:
        """Connect eventfds, disconnect them, mask, unmask, or signal by hand.

        Args:
            request: which, and what to do.
            fds: an eventfd for each subindex, or nothing to disconnect them.

        Returns:
            Whether `fds` are ours now, to close.

        Raises:
            Refused: there is no such interrupt, it can't do that, or a descriptor isn't
                an eventfd.
        """
        count = self._count(request.index)
        if request.start + request.count > count:
            raise Refused(
                EINVAL,
                f"interrupt index {request.index}, subindexes {request.start} to"
                f" {request.start + request.count - 1}; allowed: {count} from 0 on",
            )
        if not count:
            return False  # to disconnect all that there are, which is none
        if request.action is IrqAction.TRIGGER:
            return self._apply_trigger(request, fds)
        kind = _KINDS.get(request.index)
        if kind is None:
            raise Refused(ENOTTY, f"interrupt index {request.index} can't be masked")
        if request.data is IrqData.EVENTFD:
            return self._apply_unmask_fd(request, fds)
        if vectors := chosen(request):
            change = (
                self._vectors.hold if request.action is IrqAction.MASK else self._vectors.release
            )
            change(kind, vectors)
        return False

    @property
    def takes_requests(self) -> bool:
        """Whether the client can be asked to let the function go."""
        return _number(IRQ_REQ, 0) in self._fds

    def request_release(self) -> None:
        """Ask the client to let the function go, if it can be asked."""
        self._fds.signal_here(_number(IRQ_REQ, 0))

    def close(self) -> None:
        """Disconnect everything, and connect nothing any more. Once is enough."""
        if self._fds.close():
            self._vectors.detach(self._signal)
            with self._lock:
                self._closed = True
            self._listen(None)

    def _apply_trigger(self, request: SetIrqs, fds: tuple[int, ...]) -> bool:
        index = request.index
        kind = _KINDS.get(index)
        subindexes = range(request.start, request.start + request.count)
        if fds:
            self._fds.connect(
                {_number(index, each): fd for each, fd in zip(subindexes, fds, strict=True)}
            )
            if kind is not None:
                self._vectors.connect(kind, subindexes)
            return True
        if request.count == 0:
            subindexes = range(self._count(index))
            if kind is IrqKind.INTX:
                self._listen(None)
        elif request.data is not IrqData.EVENTFD:
            for each in chosen(request):
                self._fds.signal_here(_number(index, each))
            return False
        if kind is not None:
            self._vectors.disconnect(kind, subindexes)
        self._fds.disconnect({_number(index, each) for each in subindexes})
        return False

    def _apply_unmask_fd(self, request: SetIrqs, fds: tuple[int, ...]) -> bool:
        if request.index != IrqKind.INTX or request.action is not IrqAction.UNMASK:
            raise Refused(ENOTTY, "eventfds are for TRIGGER, and for UNMASK of INTx")
        vectors = self._vectors
        self._listen(Unmasking(fds[0], lambda: vectors.release(IrqKind.INTX, [0])) if fds else None)
        return bool(fds)

    def _listen(self, unmasking: Unmasking | None) -> None:
        """Listen to another eventfd, or to none, for unmasking INTx."""
        with self._lock:
            unwanted = self._unmasking
            if self._closed and unmasking is not None:
                unmasking.close()
                unmasking = None
            self._unmasking = unmasking
        if unwanted is not None:
            unwanted.close()

    def _count(self, index: int) -> int:
        """How many subindexes an index has."""
        if index in (IRQ_ERR, IRQ_REQ):
            return 1
        if index not in _KINDS:
            raise Refused(EINVAL, f"there is no interrupt index {index}")
        return self._vectors.count(_KINDS[index])

    def _signal(self, kind: IrqKind, vector: int) -> None:
        """Signal a vector. Under the lock of the vectors."""
        self._fds.signal(_number(kind, vector))


def _number(index: int, subindex: int) -> int:
    return index << _INDEX_SHIFT | subindex
