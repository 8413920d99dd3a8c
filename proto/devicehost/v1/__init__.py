"""The gRPC API, version 1: messages and stubs, generated from the .proto files beside."""
