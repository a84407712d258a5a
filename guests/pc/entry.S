/* Multiboot 1 header, stack, and the two ways in: the start, and IRQ 13. */
	.section .multiboot, "a"
	.long 0x1badb002, 0, -0x1badb002

	.text
	.globl start, irq13_entry, other_entry
start:
	mov	$stack_top, %esp
	call	pc_main
1:	cli
	hlt
	jmp	1b
irq13_entry:
	pusha
	call	irq13
	popa
	iret
other_entry:
	call	other_vector

	.bss
	.align	16
	.skip	16384
stack_top:

	.section .note.GNU-stack, "", @progbits
