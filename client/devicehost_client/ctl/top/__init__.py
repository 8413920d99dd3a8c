"""`devicehostctl top`: what a server's devices do, live.

    frames     what is shown of one interval: a `Frame`
    model      what is known of a server: it makes frames
    order      what tables are sorted by
    figures    numbers as text, bars and sparklines
    lines      lines of text in tones, and columns
    tables     devices, registers, interrupts, latency, as lines
    strip      the address map as a strip
    header     the lines at the top
    details    one device, register by register
    source     threads that watch the server, and come back when it does
    once       one interval, as tables or JSON

    app        the terminal, with `widgets`, `screens` and `palette`; these need textual

All but the last line needs neither a terminal nor textual: frames come in, lines go out.
"""
