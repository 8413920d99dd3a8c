"""SessionService: who the server is and what it can do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from devicehost.v1 import session_service_pb2 as pb
from devicehost.v1.session_service_pb2_grpc import SessionServiceServicer
from devicehost_server import VERSION
from devicehost_server.features import FEATURES


class SessionService(SessionServiceServicer):
    """Describes the server.

    Args:
        instance_id: what tells this start of the server from others.
        draining: whether it takes no new work.
        local_socket: the path of the local socket, or "" if there is none.
    """

    def __init__(
        self, instance_id: str, draining: Callable[[], bool], *, local_socket: str
    ) -> None:
        self._instance_id = instance_id
        self._local_socket = local_socket
        self._draining = draining
        self._start_time = Timestamp()
        self._start_time.FromNanoseconds(time.time_ns())

    def GetServer(
        self, request: pb.GetServerRequest, context: grpc.ServicerContext
    ) -> pb.GetServerResponse:
        """Describe the server."""
        del request, context
        draining = self._draining()
        return pb.GetServerResponse(
            version=VERSION,
            instance_id=self._instance_id,
            pid=os.getpid(),
            start_time=self._start_time,
            features=FEATURES,
            local_socket=self._local_socket,
            state=pb.SERVER_STATE_DRAINING if draining else pb.SERVER_STATE_SERVING,
        )
