"""Devices come and go: `DeviceHost.hotplug`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import grpc

from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost_client.errors import from_rpc_error
from devicehost_client.rpc import call, new_request_id, pages


class Hotplug:
    """Plugs and unplugs devices. Safe to use from any thread.

    All methods raise `RemoteError` with a reason of theirs, and `ConnectionLost`.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = HotplugServiceStub(channel)

    def plug(
        self,
        device_type: str,
        config: Mapping[str, str] | None = None,
        *,
        device_id: str = "",
        expected_generation: int | None = None,
    ) -> pb.Device:
        """Plug a device, and return it with its resources.

        Args:
            device_type: the name of its type.
            config: text by key.
            device_id: a name; empty to have one made.
            expected_generation: refuse if the devices have changed since.

        Raises:
            RemoteError: see HotplugService.PlugDevice for the reasons.
        """
        request = pb.PlugDeviceRequest(
            request_id=new_request_id(),
            type=device_type,
            device_id=device_id,
            config=config,
            expected_generation=expected_generation,
        )
        response: pb.PlugDeviceResponse = call(self._stub.PlugDevice, request)
        return response.device

    def unplug(self, device_id: str, *, expected_generation: int | None = None) -> int:
        """Unplug a device, and return the generation after it.

        Raises:
            RemoteError: NO_SUCH_DEVICE, DEVICE_BUSY, GENERATION_MISMATCH, DRAINING.
        """
        request = pb.UnplugDeviceRequest(
            request_id=new_request_id(),
            device_id=device_id,
            expected_generation=expected_generation,
        )
        response: pb.UnplugDeviceResponse = call(self._stub.UnplugDevice, request)
        return response.generation

    def get(self, device_id: str) -> pb.Device:
        """Return one device.

        Raises:
            RemoteError: NO_SUCH_DEVICE.
        """
        response: pb.GetDeviceResponse = call(
            self._stub.GetDevice, pb.GetDeviceRequest(device_id=device_id)
        )
        return response.device

    def devices(self) -> list[pb.Device]:
        """Return all devices, by id."""
        request = pb.ListDevicesRequest()
        return [d for page in pages(self._stub.ListDevices, request) for d in page.devices]

    def types(self) -> list[pb.DeviceType]:
        """Return all types of devices, by name."""
        request = pb.ListDeviceTypesRequest()
        found = pages(self._stub.ListDeviceTypes, request)
        return [device_type for page in found for device_type in page.device_types]

    def watch(self) -> Iterator[pb.WatchDevicesResponse]:
        """Yield all devices, in one snapshot, and then each change.

        Close the iterator to stop.

        Raises:
            RemoteError: WATCH_TOO_SLOW, DRAINING.
            ConnectionLost: the server is gone.
        """
        watching = self._stub.WatchDevices(pb.WatchDevicesRequest())
        try:
            yield from watching
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            watching.cancel()
