// Entry points and early page tables: everything before the first line of Rust.
//
// PVH (Xen, QEMU, Firecracker, Cloud Hypervisor): 32-bit protected mode,
// paging off, EBX = physical address of hvm_start_info (Xen, pvh.pandoc).
// Linux 64-bit (monitors that start ELF files): long mode on an identity map,
// RSI = physical address of the zero page (Linux, x86 boot protocol).
// Multiboot2 (GRUB, after BIOS and after EFI alike): the state of PVH, EBX =
// physical address of the boot information. We ask for no EFI tags, so GRUB
// ends EFI's boot services itself.
//
// All end in `firn_start(kind: u32, info: u64, tsc: u64)` on the kernel's own
// stack, in the high half, interrupts off, SSE on, AVX unreachable.

.set IMAGE_BASE, 0xffffffff80000000
.set CR0_WANT, 0x80010033      // PG WP NE ET MP PE; EM and TS clear
.set CR4_WANT, 0x620           // PAE OSFXSR OSXMMEXCPT; OSXSAVE clear: no AVX
.set EFER_LME_NXE, 0x900
.set KIND_PVH, 1
.set KIND_LINUX, 2
.set KIND_MULTIBOOT2, 3
.set MULTIBOOT2_MAGIC, 0xe85250d6

.section .note.xen, "a", @note
.balign 4
    .long 4, 4, 18             // namesz, descsz, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long firn_pvh_entry

// The linker script puts this first: GRUB looks in the first 32 KiB of the file.
.section .boot.header, "a", @progbits
.balign 8
multiboot2_header:
    .long MULTIBOOT2_MAGIC
    .long 0                    // architecture: i386, 32-bit protected mode
    .long multiboot2_header_end - multiboot2_header
    .long 0x100000000 - (MULTIBOOT2_MAGIC + (multiboot2_header_end - multiboot2_header))
    .short 3, 0                // entry address tag; e_entry is Linux's
    .long 12
    .long firn_multiboot2_entry
    .balign 8
    .short 0, 0                // last tag
    .long 8
multiboot2_header_end:

.section .boot.text, "ax", @progbits
.code32
.global firn_multiboot2_entry
firn_multiboot2_entry:
    mov edi, ebx
    mov ebx, KIND_MULTIBOOT2
    jmp enter_from_32_bits

.global firn_pvh_entry
firn_pvh_entry:
    mov edi, ebx
    mov ebx, KIND_PVH
enter_from_32_bits:            // ebx: kind, edi: information
    cli
    cld
    rdtsc
    mov esi, eax               // TSC at entry: esi low, ebp high
    mov ebp, edx
    mov eax, CR4_WANT
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080        // EFER
    rdmsr
    or eax, EFER_LME_NXE
    wrmsr
    mov eax, CR0_WANT
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    .byte 0xea                 // ljmp 0x08:in_long_mode
    .long in_long_mode
    .word 8

.code64
in_long_mode:
    mov eax, esi
    mov edx, ebp
    shl rdx, 32
    or rdx, rax
    mov esi, edi
    mov edi, ebx
    jmp enter_kernel

.global firn_linux_entry
firn_linux_entry:
    cli
    cld
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov r8, rax                // TSC at entry
    mov eax, CR4_WANT
    mov cr4, rax
    mov eax, offset boot_pml4
    mov cr3, rax
    mov ecx, 0xc0000080        // EFER: LME and LMA are on already
    rdmsr
    or eax, EFER_LME_NXE
    wrmsr
    mov eax, CR0_WANT
    mov cr0, rax
    lgdt [boot_gdt_pointer]
    mov esp, offset boot_scratch_end
    push 8
    mov eax, offset linux_on_own_gdt
    push rax
    retfq
linux_on_own_gdt:
    mov rdx, r8
    mov edi, KIND_LINUX
    // rsi still holds the zero page

enter_kernel:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    xor ebp, ebp               // ends the frame-pointer chain of backtraces
    movabs rsp, offset firn_boot_stack_top
    fninit
    push 0x1f80                // MXCSR: all exceptions masked, round to nearest
    ldmxcsr [rsp]
    add rsp, 8
    movabs rax, offset firn_start
    call rax
    ud2                        // firn_start does not return

.section .boot.data, "aw", @progbits
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff   // 0x08: 64-bit code, ring 0
    .quad 0x00cf93000000ffff   // 0x10: data
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .quad boot_gdt
boot_scratch:
    .fill 8, 8, 0
boot_scratch_end:

// Early page tables, 2 MiB pages, read-write-execute; `mm::paging` replaces
// the image's part by 4 KiB pages with real permissions and extends the
// direct map when there is memory above 4 GiB.
.balign 4096
.global boot_pml4
boot_pml4:
    .quad boot_pdpt_low + 3            // identity, dropped once in the kernel
    .fill 287, 8, 0
    .quad boot_pdpt_low + 3            // slot 288: direct map at 0xffff900000000000
    .fill 222, 8, 0
    .quad boot_pdpt_image + 3          // slot 511: the image at IMAGE_BASE
.balign 4096
boot_pdpt_low:
    .set gigabyte, 0
    .rept 4
    .quad boot_pd + gigabyte * 4096 + 3
    .set gigabyte, gigabyte + 1
    .endr
    .fill 508, 8, 0
.balign 4096
boot_pdpt_image:
    .fill 510, 8, 0
    .quad boot_pd + 3
    .quad 0
.balign 4096
boot_pd:
    .set frame, 0
    .rept 2048
    .quad frame * 0x200000 + 0x83      // present, write, 2 MiB
    .set frame, frame + 1
    .endr
