"""Debugging: all accesses of a VM pass the server, so they can be seen, held, and spoiled.

    initiators ──► observed ──► the bus
                      ├──► taps ──► feeds: trace, recording, activity; flight recorder
                      └──► stages: faults, breakpoints

| module        | what is in it                                                            |
|---------------|--------------------------------------------------------------------------|
| debugger      | `Debugger`: all of it, and what is armed                                 |
| observed      | what initiators call while somebody watches                              |
| pending       | an access on its way, for stages                                         |
| taps          | copies of accesses, packed, until they are fetched                       |
| journal       | what devices learn from outside, for taps                                |
| feeds         | traces, for their readers                                                |
| record_feed   | recordings, likewise                                                     |
| activity      | counts of accesses; activity_feed names them                             |
| flight        | the last accesses, and their dump when a device faults                   |
| filters       | which accesses are wanted; matching and places decide                    |
| breakpoints   | where accesses are held; holds keeps them                                |
| faults        | devices made to misbehave                                                |
| registers     | the registers of devices: names, peek and poke                           |
| states        | devices' states, saved and restored                                      |
| inspection    | the server's state as a tree; views are its branches                     |

Nothing of this costs an access anything until it is armed.
"""
