/* Functions of the CUDA driver, found when they are first called.
 *
 * Each entry jumps through its slot of a table. An empty slot is filled by lambda_hat_cuda_resolve, which opens
 * libcuda.so.1; where there is none, the call returns CUDA_ERROR_NO_DEVICE (100). So a program with GPU code starts
 * on a machine without a driver. x86-64 System V calling convention: r11 is free between caller and callee. */

    .macro entry name, index
    .globl \name
    .type \name, @function
\name:
    movq lambda_hat_cuda_table+8*\index(%rip), %r11
    testq %r11, %r11
    jz 1f
    jmp *%r11
1:  movl $\index, %r11d
    jmp find_and_go
    .size \name, . - \name
    .endm

    .text
#include "entries.inc"

/* All that may hold an argument is kept over the call: six integer registers, and vector registers 0 to 3, as no
 * function of the driver has more numbers than that. 120 bytes leave the stack aligned to 16. */
    .type find_and_go, @function
find_and_go:
    .cfi_startproc
    subq $120, %rsp
    .cfi_adjust_cfa_offset 120
    movq %rdi, 64(%rsp)
    movq %rsi, 72(%rsp)
    movq %rdx, 80(%rsp)
    movq %rcx, 88(%rsp)
    movq %r8, 96(%rsp)
    movq %r9, 104(%rsp)
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movl %r11d, %edi
    call lambda_hat_cuda_resolve
    movq %rax, %r11
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movq 64(%rsp), %rdi
    movq 72(%rsp), %rsi
    movq 80(%rsp), %rdx
    movq 88(%rsp), %rcx
    movq 96(%rsp), %r8
    movq 104(%rsp), %r9
    addq $120, %rsp
    .cfi_adjust_cfa_offset -120
    testq %r11, %r11
    jz 2f
    jmp *%r11
2:  movl $100, %eax
    ret
    .cfi_endproc
    .size find_and_go, . - find_and_go

    .section .note.GNU-stack, "", @progbits
