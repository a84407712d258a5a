/* Entry of the demo guest: Multiboot 1 or PVH, 32-bit protected mode, up to 64-bit C on an identity map. And interrupt stubs. */

#define MULTIBOOT_MAGIC 0x1BADB002
#define MULTIBOOT_FLAGS 2 /* memory information */
#define XEN_ELFNOTE_PHYS32_ENTRY 18

        .section .multiboot, "a"
        .balign 4
        .long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

        .section .note.pvh, "a", @note
        .balign 4
        .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start

        .code32
        .text
        .globl start
start:
        cli
        cld
        movl $stack_top, %esp
        movl %eax, boot_magic
        movl %ebx, boot_info
        /* PML4[0] -> PDPT, PDPT[0..3] -> page directories, 2048 pages of 2 MiB */
        movl $pdpt + 3, pml4
        movl $directories + 3, %eax
        movl $pdpt, %edi
        movl $4, %ecx
1:      movl %eax, (%edi)
        addl $4096, %eax
        addl $8, %edi
        loop 1b
        movl $0x83, %eax
        movl $directories, %edi
        movl $2048, %ecx
2:      movl %eax, (%edi)
        addl $0x200000, %eax
        addl $8, %edi
        loop 2b
        movl %cr4, %eax
        orl $0x20, %eax                 /* PAE */
        movl %eax, %cr4
        movl $pml4, %eax
        movl %eax, %cr3
        movl $0xC0000080, %ecx          /* EFER.LME */
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80010000, %eax           /* PG, WP */
        movl %eax, %cr0
        lgdt gdt_pointer
        ljmp $8, $long_mode

        .code64
long_mode:
        movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        xorl %eax, %eax
        movl %eax, %fs
        movl %eax, %gs
        movl boot_magic, %edi
        movl boot_info, %esi
        call main
        .globl stop
stop:   cli
        hlt
        jmp stop

/* One stub a vector, 16 bytes each: pushes a zero where the processor pushes no error code. */
        .balign 16
        .globl stubs
stubs:
        vector = 0
        .rept 256
        .balign 16
        .if !((vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21))
        pushq $0
        .endif
        pushq $vector
        jmp common
        vector = vector + 1
        .endr

common:
        pushq %rax
        pushq %rcx
        pushq %rdx
        pushq %rsi
        pushq %rdi
        pushq %r8
        pushq %r9
        pushq %r10
        pushq %r11
        leaq 72(%rsp), %rdi             /* struct frame: vector, error code, then what the processor pushed */
        cld
        call interrupt
        popq %r11
        popq %r10
        popq %r9
        popq %r8
        popq %rdi
        popq %rsi
        popq %rdx
        popq %rcx
        popq %rax
        addq $16, %rsp
        iretq

        .section .rodata
        .balign 8
gdt:    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer:
        .word 23
        .long gdt

        .bss
        .balign 4096
        .globl pml4, pdpt, directories
pml4:   .skip 4096
pdpt:   .skip 4096
directories:
        .skip 4 * 4096
        .skip 16384
stack_top:
boot_magic: .skip 4
boot_info:  .skip 4
        .section .note.GNU-stack, "", @progbits
