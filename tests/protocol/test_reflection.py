"""Server reflection: a client without our code finds out all that it needs, as grpcurl does.

The client here has a process of its own, which imports gRPC, protobuf and the messages of
the reflection service, and nothing of devicehost.
"""

from __future__ import annotations

import json
import subprocess
import sys

from daemonlab import WAIT_S, Lab
from devicehost_client import DeviceHost

CLIENT = '''
"""Lists services; then calls IoService.Access by its descriptor."""
import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

endpoint, request_json = sys.argv[1:]
channel = grpc.insecure_channel(endpoint)
stub = reflection_pb2_grpc.ServerReflectionStub(channel)

def ask(**fields):
    request = reflection_pb2.ServerReflectionRequest(**fields)
    (response,) = stub.ServerReflectionInfo(iter([request]), timeout=30)
    return response

services = [each.name for each in ask(list_services="").list_services_response.service]

pool = descriptor_pool.DescriptorPool()
known = set()

def add(**fields):
    """Add a file to the pool, what it imports first."""
    for content in ask(**fields).file_descriptor_response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(content)
        if file.name not in known:
            known.add(file.name)
            for imported in file.dependency:
                add(file_by_filename=imported)
            pool.Add(file)

for service in services:
    add(file_containing_symbol=service)
methods = {
    service: sorted(method.name for method in pool.FindServiceByName(service).methods)
    for service in services
}

access = pool.FindMethodByName("devicehost.v1.IoService.Access")
request = message_factory.GetMessageClass(access.input_type)()
json_format.Parse(request_json, request)
call = channel.unary_unary(
    f"/{access.containing_service.full_name}/{access.name}",
    request_serializer=lambda message: message.SerializeToString(),
    response_deserializer=message_factory.GetMessageClass(access.output_type).FromString,
)
response = json_format.MessageToDict(call(request, timeout=30))
ours = [name for name in sys.modules if name.startswith("devicehost")]
print(json.dumps({"methods": methods, "response": response, "ours": ours}))
'''


def test_a_client_without_our_code_makes_an_access(lab: Lab, host: DeviceHost) -> None:
    host.hotplug.plug("register", {"base": "0xd0000000"})
    host.mmio_write(0xD000_0000, 4, 0x0403_0201)
    access = {"space": "SPACE_MMIO", "operation": "OPERATION_READ"}
    request = {"access": {**access, "address": str(0xD000_0000), "size": 4}}
    ended = subprocess.run(
        [sys.executable, "-c", CLIENT, lab.endpoint, json.dumps(request)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["ours"] == []
    assert found["response"] == {"completion": {"data": "AQIDBA=="}}
    assert found["methods"] == {
        "devicehost.v1.DebugService": found["methods"]["devicehost.v1.DebugService"],
        "devicehost.v1.HotplugService": [
            "GetDevice",
            "ListDeviceTypes",
            "ListDevices",
            "PlugDevice",
            "UnplugDevice",
            "WatchDevices",
        ],
        "devicehost.v1.InterruptService": ["WatchInterrupts"],
        "devicehost.v1.IoService": ["Access", "ListRanges", "Stream"],
        "devicehost.v1.ResourceService": [
            "Allocate",
            "GetCapacity",
            "ListAllocations",
            "Release",
        ],
        "devicehost.v1.SessionService": ["GetServer"],
        "grpc.health.v1.Health": found["methods"]["grpc.health.v1.Health"],
        "grpc.reflection.v1alpha.ServerReflection": ["ServerReflectionInfo"],
    }
    assert {"Trace", "Record", "WatchHits"} <= set(found["methods"]["devicehost.v1.DebugService"])
    assert {"Check", "Watch"} <= set(found["methods"]["grpc.health.v1.Health"])
