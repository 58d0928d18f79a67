# A monitor in miniature: entered by PVH, it loads the ELF file that is part of
# it (guest.elf) and starts it by the Linux 64-bit boot protocol, with a zero
# page made from hvm_start_info. Comments begin with '#': in this syntax two
# slashes after an operand are a division.
.intel_syntax noprefix
.section .note.xen, "a", @note
.balign 4
    .long 4, 4, 18              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long start

.section .text, "ax", @progbits
.code32
.globl start
start:
    mov edi, ebx
    mov eax, 0x20
    mov cr4, eax
    lea eax, pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80000011
    mov cr0, eax
    lgdt [gdt_pointer]
    .byte 0xea
    .long in_long_mode
    .word 0x10
.code64
in_long_mode:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov r15, rdi                 # start info
    # load segments
    lea r12, guest
    movzx r13d, word ptr [r12 + 56]   # phnum
    mov r14, [r12+32]               # phoff
    add r14, r12

segment:
    cmp dword ptr [r14], 1
    jne next_segment
    mov rsi, [r14+8]
    add rsi, r12
    mov rdi, [r14+24]               # paddr
    mov rcx, [r14+32]
    mov rdx, [r14+40]
    sub rdx, rcx
    rep movsb
    mov rcx, rdx
    xor eax, eax
    rep stosb
next_segment:
    add r14, 56
    dec r13d
    jnz segment
    # zero page
    lea rdi, zero_page
    mov dword ptr [rdi+0x202], 0x53726448
    mov rax, [r15+24]
    mov [rdi+0x228], eax
    mov rax, [r15+32]
    mov [rdi+0x70], rax
    mov ecx, [r15+48]
    mov [rdi+0x1e8], cl
    mov rsi, [r15+40]
    lea rdx, [rdi+0x2d0]
memory_entry:
    mov rax, [rsi]
    mov [rdx], rax
    mov rax, [rsi+8]
    mov [rdx+8], rax
    mov eax, [rsi+16]
    mov [rdx+16], eax
    add rsi, 24
    add rdx, 20
    dec ecx
    jnz memory_entry
    mov rsi, rdi
    mov rax, [r12+24]
    jmp rax
.data
.balign 8
gdt: .quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer: .word gdt_pointer - gdt - 1
    .quad gdt
.balign 4096
pml4: .quad pdpt + 3
 .fill 511,8,0
pdpt: .set g,0
 .rept 4
 .quad pd + g*4096 + 3
 .set g,g+1
 .endr
 .fill 508,8,0
pd: .set f,0
 .rept 2048
 .quad f*0x200000 + 0x83
 .set f,f+1
 .endr
zero_page: .fill 4096,1,0
guest: .incbin "guest.elf"
