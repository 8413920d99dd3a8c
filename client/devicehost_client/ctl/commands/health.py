"""`health`: who the server is, and whether it takes new work."""

from __future__ import annotations

import time

from devicehost.v1 import session_service_pb2 as pb
from devicehost_client.ctl.command import Context, ExitStatus, Verb
from devicehost_client.ctl.output import Table

_STATES = {pb.SERVER_STATE_SERVING: "serving", pb.SERVER_STATE_DRAINING: "draining"}


def health(context: Context) -> ExitStatus:
    """Show the server, and tell by the status whether it serves."""
    server = context.host.server()
    state = _STATES.get(server.state, "unknown")
    # The server's clock may be ahead of ours.
    uptime_s = max(0.0, time.time() - server.start_time.ToNanoseconds() / 1e9)
    context.output.show(
        {
            "state": state,
            "version": server.version,
            "instance_id": server.instance_id,
            "pid": server.pid,
            "start_time": server.start_time.ToJsonString(),
            "uptime_s": round(uptime_s, 3),
            "features": list(server.features),
        },
        Table(
            ("FIELD", "VALUE"),
            [
                ("state", state),
                ("version", server.version),
                ("instance", server.instance_id),
                ("pid", str(server.pid)),
                ("uptime", duration_text(int(uptime_s))),
                ("features", " ".join(server.features)),
            ],
        ),
    )
    return ExitStatus.OK if server.state == pb.SERVER_STATE_SERVING else ExitStatus.FAILED


def duration_text(seconds: int) -> str:
    """Return a duration as people say it: `3d 04:05:06`."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour:02}:{minute:02}:{second:02}"
    return f"{days}d {clock}" if days else clock


HEALTH = Verb(
    "health",
    health,
    summary="show the server's version, instance, process, uptime and state",
    json=(
        '{"state": "serving" or "draining", "version", "instance_id", "pid",\n'
        '"start_time": RFC 3339, "uptime_s", "features": [NAME]}'
    ),
    statuses={
        ExitStatus.OK: "it is serving",
        ExitStatus.FAILED: "it is draining: about to stop, it takes no new work",
    },
    examples=(
        "devicehostctl health",
        "until devicehostctl health >/dev/null 2>&1; do sleep 1; done",
    ),
)
