"""What was accessed in an interval, as the messages of DebugService have it."""

from __future__ import annotations

from devicehost.v1 import debug_service_pb2 as pb
from devicehost_server.debug.activity import Activity, InterruptActivity, PlaceActivity
from devicehost_server.services.debug_convert import SPACES


def activity_to_message(activity: Activity) -> pb.WatchActivityResponse:
    """Turn what was counted in an interval into its message."""
    return pb.WatchActivityResponse(
        interval_ns=activity.interval_ns,
        places=map(_place_to_message, activity.places),
        interrupts=map(_interrupt_to_message, activity.interrupts),
        latency=activity.latency,
    )


def _place_to_message(place: PlaceActivity) -> pb.PlaceActivity:
    return pb.PlaceActivity(
        device_id=place.device,
        register=place.register,
        space=SPACES[place.space],
        address=place.address,
        reads=place.reads,
        writes=place.writes,
        failures=place.failures,
        took_ns=place.took_ns,
        longest_ns=place.longest_ns,
    )


def _interrupt_to_message(interrupt: InterruptActivity) -> pb.InterruptActivity:
    return pb.InterruptActivity(
        gsi=interrupt.gsi, count=interrupt.count, asserted=interrupt.asserted
    )
