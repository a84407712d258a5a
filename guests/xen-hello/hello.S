/* The smallest paravirtual Xen guest: prints one line by the hypervisor's console and one by the console ring, then shuts down. */
.code64
.section .note.xen, "a", @note
.macro note type, data:vararg
    .align 4
    .long 4, 3f - 2f, \type
    .asciz "Xen"
2:  \data
3:  .align 4
.endm
    note 5, .asciz "xen-3.0"            /* XEN_VERSION */
    note 1, .quad start                 /* ENTRY */
    note 3, .quad 0xffffffff80000000    /* VIRT_BASE */
    note 4, .quad 0                     /* PADDR_OFFSET */
    note 6, .asciz "nonroot"            /* GUEST_OS */

.set console_io, 18
.set event_channel_op, 32
.set sched_op, 29

.section .text
.globl start
start:                                  /* RSI: start information */
    mov %rsi, %rbx
    mov $console_io, %eax
    xor %edi, %edi                      /* CONSOLEIO_write */
    mov $(line_end - line), %esi
    lea line(%rip), %rdx
    syscall

    /* The console's ring is the second page behind start information. */
    lea 0x2000(%rbx), %rbp
    lea ring_line(%rip), %rsi
    lea 1024(%rbp), %rdi
    mov $(ring_end - ring_line), %ecx
    rep movsb
    movl $(ring_end - ring_line), 3084(%rbp) /* out_prod */
    mov 80(%rbx), %eax                  /* console.domU.evtchn */
    push %rax
    mov $event_channel_op, %eax
    mov $4, %edi                        /* EVTCHNOP_send */
    mov %rsp, %rsi
    syscall

    push $0                             /* SHUTDOWN_poweroff */
    mov $sched_op, %eax
    mov $2, %edi                        /* SCHEDOP_shutdown */
    mov %rsp, %rsi
    syscall
1:  jmp 1b

.section .rodata
line: .ascii "hello from the hypervisor's console\n"
line_end:
ring_line: .ascii "hello from the ring\n"
ring_end:
