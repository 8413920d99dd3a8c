"""The device model, after the Rust crate dbs-device: names, resources, the I/O bus.

It imports nothing but the standard library, and does no I/O.
"""
