/* Xen notes, entry, and accesses that may fault: each gives 1 where it did, 0 where it went through. */
.code64
.section .note.xen, "a", @note
.macro note type, data:vararg
    .align 4
    .long 4, 3f - 2f, \type
    .asciz "Xen"
2:  \data
3:  .align 4
.endm
    note 5, .asciz "xen-3.0"
    note 1, .quad start
    note 3, .quad 0xffffffff80000000
    note 4, .quad 0
    note 6, .asciz "nonroot"

.text
.globl start
start:
    mov %rsi, %rdi
    call kernel
1:  jmp 1b

.globl hypercall                        /* (number, a, b, c, d) */
hypercall:
    mov %rdi, %rax
    mov %rsi, %rdi
    mov %rdx, %rsi
    mov %rcx, %rdx
    mov %r8, %r10
    syscall
    ret

.macro try name, code:vararg
.globl \name
\name:
    lea 8f(%rip), %rax
    mov %rax, recover(%rip)
    \code
    xor %eax, %eax
    ret
8:  mov $1, %eax
    ret
.endm
try try_write, mov %rsi, (%rdi)
try try_read, mov (%rdi), %rax
try try_hlt, hlt
try try_int, int $0x20
try try_jump, call *%rdi

.globl try_in                           /* (port) */
try_in:
    lea 8f(%rip), %rax
    mov %rax, recover(%rip)
    mov %edi, %edx
    in %dx, %al
    xor %eax, %eax
    ret
8:  mov $1, %eax
    ret

.globl try_wrmsr                        /* (index, value) */
try_wrmsr:
    lea 8f(%rip), %rax
    mov %rax, recover(%rip)
    mov %edi, %ecx
    mov %esi, %eax
    mov %rsi, %rdx
    shr $32, %rdx
    wrmsr
    xor %eax, %eax
    ret
8:  mov $1, %eax
    ret

.globl try_write_cr0
try_write_cr0:
    lea 8f(%rip), %rax
    mov %rax, recover(%rip)
    mov %rdi, %cr0
    xor %eax, %eax
    ret
8:  mov $1, %eax
    ret

/* A jump to where nothing may run has pushed a return address: the stack is put back. */
.globl fault_with_code, fault_plain
fault_with_code:
    pop %rcx
    pop %r11
    add $8, %rsp
    jmp 1f
fault_plain:
    pop %rcx
    pop %r11
1:  mov recover(%rip), %rax
    mov (%rsp), %rdx
    shr $43, %rdx
    cmp $0x1ffff0, %rdx                 /* in the hypervisor's range: called */
    jne 2f
    addq $8, 24(%rsp)
2:  mov %rax, (%rsp)
    push $0
    push %rcx
    push %r11
    push $0
    mov $23, %eax                       /* iret */
    syscall

.data
.globl recover
recover: .quad 0
