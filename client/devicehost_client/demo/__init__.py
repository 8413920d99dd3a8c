"""The demonstration, `make demo`: a guest whose devices all live in another process.

It starts `devicehostd`, plugs the devices through the API, and runs SeaBIOS under KVM, or
a small guest of its own where there is no SeaBIOS or no KVM. Each access of the guest
crosses to the server and back. It ends by itself, and prints what happened.
"""
