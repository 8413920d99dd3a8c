"""HotplugService: devices come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc

from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceServicer
from devicehost_server.device_info import DeviceEvent, DeviceInfo
from devicehost_server.device_manager import DeviceManager
from devicehost_server.model.counters import AccessCounts
from devicehost_server.services.convert import device_to_message, device_type_to_message
from devicehost_server.services.feed import Feed
from devicehost_server.services.feeds import Feeds
from devicehost_server.services.idempotency import RequestLog
from devicehost_server.services.pages import page


class HotplugService(HotplugServiceServicer):
    """Plugs, unplugs and tells of devices.

    Args:
        devices: the devices.
        counts: tells how often a device was accessed.
        requests: the requests that came before.
        feeds: the open watches.
    """

    def __init__(
        self,
        devices: DeviceManager,
        counts: Callable[[str], AccessCounts],
        requests: RequestLog,
        feeds: Feeds,
    ) -> None:
        self._devices = devices
        self._counts = counts
        self._requests = requests
        self._feeds = feeds

    def PlugDevice(
        self, request: pb.PlugDeviceRequest, context: grpc.ServicerContext
    ) -> pb.PlugDeviceResponse:
        """Plug a device."""
        del context

        def plug() -> pb.PlugDeviceResponse:
            info = self._devices.plug(
                request.type,
                dict(request.config),
                device_id=request.device_id,
                expected_generation=_expected(request),
            )
            return pb.PlugDeviceResponse(device=self._message(info))

        return self._requests.run(request, plug)

    def UnplugDevice(
        self, request: pb.UnplugDeviceRequest, context: grpc.ServicerContext
    ) -> pb.UnplugDeviceResponse:
        """Unplug a device."""
        del context

        def unplug() -> pb.UnplugDeviceResponse:
            generation = self._devices.unplug(
                request.device_id, expected_generation=_expected(request)
            )
            return pb.UnplugDeviceResponse(generation=generation)

        return self._requests.run(request, unplug)

    def GetDevice(
        self, request: pb.GetDeviceRequest, context: grpc.ServicerContext
    ) -> pb.GetDeviceResponse:
        """Tell of one device."""
        del context
        return pb.GetDeviceResponse(device=self._message(self._devices.get(request.device_id)))

    def ListDevices(
        self, request: pb.ListDevicesRequest, context: grpc.ServicerContext
    ) -> pb.ListDevicesResponse:
        """Tell of all devices, by id."""
        del context
        generation, infos = self._devices.devices()
        infos_of_page, token = page(request, "devices", infos, lambda info: (info.id,))
        return pb.ListDevicesResponse(
            devices=map(self._message, infos_of_page),
            next_page_token=token,
            generation=generation,
        )

    def ListDeviceTypes(
        self, request: pb.ListDeviceTypesRequest, context: grpc.ServicerContext
    ) -> pb.ListDeviceTypesResponse:
        """Tell of all types of devices, by name."""
        del context
        infos = self._devices.types.infos()
        infos_of_page, token = page(request, "device types", infos, lambda info: (info.name,))
        return pb.ListDeviceTypesResponse(
            device_types=map(device_type_to_message, infos_of_page), next_page_token=token
        )

    def WatchDevices(
        self, request: pb.WatchDevicesRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchDevicesResponse]:
        """Send all devices, then each change."""
        del request
        feed: Feed[DeviceEvent] = Feed()
        with self._feeds.open(feed, context):
            generation, infos = self._devices.subscribe(feed.push)
            try:
                snapshot = pb.WatchDevicesResponse.Snapshot(devices=map(self._message, infos))
                yield pb.WatchDevicesResponse(generation=generation, snapshot=snapshot)
                for batch in feed.batches():
                    for event in batch:
                        yield pb.WatchDevicesResponse(
                            generation=event.generation, changed=self._message(event.device)
                        )
            finally:
                self._devices.unsubscribe(feed.push)

    def _message(self, info: DeviceInfo) -> pb.Device:
        return device_to_message(info, self._counts)


def _expected(request: pb.PlugDeviceRequest | pb.UnplugDeviceRequest) -> int | None:
    return request.expected_generation if request.HasField("expected_generation") else None
