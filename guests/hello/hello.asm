; The smallest guest: a Multiboot 1 ELF in 32-bit protected mode that prints "hello" on COM1 and
; ends the machine through isa-debug-exit. It takes no memory but its own and sets up no tables.
bits 32

MAGIC    equ 0x1BADB002
FLAGS    equ 0                    ; nothing asked of the loader
COM1     equ 0x3F8
LSR      equ COM1 + 5
DEBUG    equ 0xF4                 ; isa-debug-exit: host status is (value << 1) | 1
SUCCESS  equ 0x10                 ; so 33

section .multiboot align=4
    dd MAGIC, FLAGS, -(MAGIC + FLAGS)

section .text
global start
start:
    mov esi, message
.next:
    mov dx, LSR
.wait:
    in al, dx
    test al, 0x20                 ; transmitter holding register empty
    jz .wait
    lodsb
    test al, al
    jz .end
    mov dx, COM1
    out dx, al
    jmp .next
.end:
    mov eax, SUCCESS
    out DEBUG, eax
.halt:                            ; a machine without isa-debug-exit stops here
    cli
    hlt
    jmp .halt

section .rodata
message: db "hello", 10, 0
