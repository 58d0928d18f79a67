//! The memory routines that compiled Rust calls by name.
//!
//! A hosted target expects them from libc. `rep movsq` is microcoded on real
//! processors and the cheapest per byte under emulation as well.

core::arch::global_asm!(
    r#"
.section .text.mem, "ax", @progbits

.macro ROUTINE name
.global \name
.type \name, @function
.balign 16
\name:
.endm

ROUTINE memcpy
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    ret

ROUTINE memmove
    mov rax, rdi
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jae memcpy                 // also when rdi < rsi: the difference wraps
    lea rdi, [rdi + rdx - 1]   // the end overlaps: copy backwards
    lea rsi, [rsi + rdx - 1]
    mov rcx, rdx
    std
    and ecx, 7
    rep movsb
    sub rdi, 7
    sub rsi, 7
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    cld
    ret

ROUTINE memset
    mov r8, rdi
    movzx eax, sil
    movabs rcx, 0x0101010101010101
    imul rax, rcx
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    mov rax, r8
    ret

ROUTINE bcmp
ROUTINE memcmp
    xor eax, eax
2:  cmp rdx, 8
    jb 4f
    mov rcx, [rdi]
    mov r8, [rsi]
    cmp rcx, r8
    jne 3f
    add rdi, 8
    add rsi, 8
    sub rdx, 8
    jmp 2b
3:  bswap rcx                  // the lowest address decides
    bswap r8
    cmp rcx, r8
    sbb eax, eax
    or eax, 1
    ret
4:  test rdx, rdx
    jz 5f
    movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    sub eax, ecx
    jne 5f
    inc rdi
    inc rsi
    dec rdx
    jmp 4b
5:  ret

ROUTINE strlen
    xor eax, eax
2:  cmp byte ptr [rdi + rax], 0
    je 3f
    inc rax
    jmp 2b
3:  ret

// Unwinding: the prebuilt `core` and `alloc` name these in landing pads. Our
// panics abort, so nothing ever unwinds into them.
ROUTINE rust_eh_personality
ROUTINE _Unwind_Resume
    ud2
"#
);
