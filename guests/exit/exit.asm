; The program by which an init script tells the machine how its command ended: `exit STATUS`.
; A static ELF64 made by hand, for Linux on x86-64. It takes no /dev/port (Debian's cloud kernels have none): it asks for I/O
; privilege with iopl(2). It waits until the console has sent all, then writes the doubleword 0x4E520000 | STATUS to port 0xF4.
; It returns only where no device is there (or none was allowed), and then with status 1.
bits 64
org 0x400000

SYS_IOCTL equ 16
SYS_EXIT  equ 60
SYS_SYNC  equ 162
SYS_IOPL  equ 172
TCSBRK    equ 0x5409
PORT      equ 0xF4
SIGNATURE equ 0x4E520000        ; "NR": tells our protocol from any other use of the port

elf:
    db 0x7F, "ELF", 2, 1, 1, 0
    dq 0
    dw 2, 62                    ; ET_EXEC, EM_X86_64
    dd 1
    dq start, program - $$, 0
    dd 0
    dw 64, 56, 1, 0, 0, 0
program:
    dd 1, 5                     ; PT_LOAD, read and execute
    dq 0, $$, $$
    dq end - $$, end - $$
    dq 0x1000

start:
    xor ebx, ebx
    cmp qword [rsp], 2
    jb .read
    mov rsi, [rsp + 16]         ; argv[1]
.digit:
    movzx eax, byte [rsi]
    sub eax, '0'
    cmp eax, 9
    ja .read
    imul ebx, ebx, 10
    add ebx, eax
    inc rsi
    jmp .digit
.read:
    movzx ebx, bl
    mov eax, SYS_SYNC
    syscall
    mov eax, SYS_IOCTL          ; tcdrain(standard output)
    mov edi, 1
    mov esi, TCSBRK
    mov edx, 1
    syscall
    mov eax, SYS_IOPL
    mov edi, 3
    syscall
    test rax, rax
    js .end
    lea eax, [rbx + SIGNATURE]
    out PORT, eax
.end:
    mov eax, SYS_EXIT
    mov edi, 1
    syscall
end:
