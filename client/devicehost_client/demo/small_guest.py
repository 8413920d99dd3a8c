"""A guest of a few hundred bytes, for where there is no SeaBIOS or no KVM.

It prints through the UART, reads the clock, touches a port with no device, takes an
interrupt, and says that it is done. Real mode, loaded and started at 0x1000.
"""

from __future__ import annotations

BASE = 0x1000
DEVICES = {
    "com1": ("uart16550", {"chardev": "file:{folder}/com1"}),
    "rtc": ("mc146818", {}),
}
CONSOLE = "com1"
LAST_WORDS = "Done."

# The listing of the program: address, machine code, source. Interrupts come from IRQ 4 by
# way of the first PIC, whose vectors begin at 8. Without a PIC (Unicorn has none) the
# writes to its ports find no device, and do no harm.
_LISTING = """\
1000  FA                 start:  cli
1001  31 C0                      xor ax, ax
1003  8E D8                      mov ds, ax
1005  8E D0                      mov ss, ax
1007  BC 00 10                   mov sp, 0x1000
100A  C7 06 30 00 6E 10          mov word [0x0C*4], isr
1010  A3 32 00                   mov [0x0C*4+2], ax
1013  B0 11                      mov al, 0x11
1015  E6 20                      out 0x20, al
1017  B0 08                      mov al, 0x08
1019  E6 21                      out 0x21, al
101B  B0 04                      mov al, 0x04
101D  E6 21                      out 0x21, al
101F  B0 01                      mov al, 0x01
1021  E6 21                      out 0x21, al
1023  B0 EF                      mov al, 0xEF
1025  E6 21                      out 0x21, al
1027  BE B6 10                   mov si, hello
102A  E8 7E 00                   call print
102D  B0 04                      mov al, 0x04
102F  E8 54 00                   call clock
1032  B0 3A                      mov al, ':'
1034  E8 65 00                   call putc
1037  B0 02                      mov al, 0x02
1039  E8 4A 00                   call clock
103C  BE DC 10                   mov si, nodev
103F  E8 69 00                   call print
1042  BA 00 50                   mov dx, 0x5000
1045  EC                         in al, dx
1046  E8 41 00                   call hex
1049  BE 05 11                   mov si, wait4
104C  E8 5C 00                   call print
104F  BA FC 03                   mov dx, 0x3FC
1052  B0 08                      mov al, 0x08
1054  EE                         out dx, al
1055  BA F9 03                   mov dx, 0x3F9
1058  B0 02                      mov al, 0x02
105A  EE                         out dx, al
105B  FB                 again:  sti
105C  F4                         hlt
105D  FA                         cli
105E  80 3E 42 11 00             cmp byte [taken], 0
1063  74 F6                      je again
1065  BE 32 11                   mov si, done
1068  E8 40 00                   call print
106B  F4                 end:    hlt
106C  EB FD                      jmp end
106E  50                 isr:    push ax
106F  52                         push dx
1070  BA FA 03                   mov dx, 0x3FA
1073  EC                         in al, dx
1074  C6 06 42 11 01             mov byte [taken], 1
1079  BA F9 03                   mov dx, 0x3F9
107C  31 C0                      xor ax, ax
107E  EE                         out dx, al
107F  B0 20                      mov al, 0x20
1081  E6 20                      out 0x20, al
1083  5A                         pop dx
1084  58                         pop ax
1085  CF                         iret
1086  E6 70              clock:  out 0x70, al
1088  E4 71                      in al, 0x71
108A  50                 hex:    push ax
108B  C0 E8 04                   shr al, 4
108E  E8 03 00                   call digit
1091  58                         pop ax
1092  24 0F                      and al, 0x0F
1094  3C 0A              digit:  cmp al, 10
1096  72 02                      jb dec
1098  04 07                      add al, 7
109A  04 30              dec:    add al, '0'
109C  50                 putc:   push ax
109D  BA FD 03                   mov dx, 0x3FD
10A0  EC                 poll:   in al, dx
10A1  A8 20                      test al, 0x20
10A3  74 FB                      jz poll
10A5  58                         pop ax
10A6  BA F8 03                   mov dx, 0x3F8
10A9  EE                         out dx, al
10AA  C3                         ret
10AB  AC                 print:  lodsb
10AC  84 C0                      test al, al
10AE  74 05                      jz back
10B0  E8 E9 FF                   call putc
10B3  EB F6                      jmp print
10B5  C3                 back:   ret
"""

_TEXTS = (
    b"Hello from the guest. The clock says \0",  # hello, 10B6
    b".\r\nPort 5000 has no device and reads as \0",  # nodev, 10DC
    b".\r\nWaiting for the interrupt of the UART... \0",  # wait4, 1105
    b"taken.\r\nDone.\r\n\0",  # done, 1132
    b"\0",  # taken, 1142
)


def program() -> bytes:
    """The guest's memory from `BASE` on."""
    code = b"".join(bytes.fromhex(line[6:24]) for line in _LISTING.splitlines())
    return code + b"".join(_TEXTS)
