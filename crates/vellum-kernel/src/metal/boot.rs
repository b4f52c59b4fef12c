//! From the PVH entry, in 32-bit mode, to [`main`] in the upper half.
//!
//! ```text
//!   QEMU -kernel           ebx = hvm_start_info, paging off, flat segments
//!      |
//!   _start32               has the CPU long mode and NX? has it LA57?
//!      |                   CR4.PAE, CR4.LA57 when there, CR3, EFER.LME|NXE, CR0.PG|WP
//!   _start64               rsp = boot stack in the upper half
//!      |
//!   kernel_entry           rdi = hvm_start_info, rsi = TSC at _start32
//! ```
//!
//! The boot tables are data, not code; the stub only picks one of two tables for the direct map,
//! which gives what lies at physical 0 and up a second address, the same that it keeps later:
//!
//! ```text
//!   with LA57:  boot_pml5 [0] [511] -> boot_pml4        boot_pml5 [256] -> boot_pml4_direct [0]
//!                                                                             |
//!   boot_pml4   [0]   -> boot_pdpt_low  [0..4]  -> boot_pd, 4 GiB             |  direct map
//!               [256] -> boot_pdpt_huge [0..512], 512 GiB by 1 GiB leaves  <--+
//!                        (or boot_pdpt_low, on a CPU without them)
//!               [511] -> boot_pdpt_high [510]   -> boot_pd, the first GiB: the image
//! ```
//!
//! A CPU uses them until it loads what [`paging`](super::paging) has built: the first at once, the
//! second when it is woken. That one begins in 16-bit mode, in a page below 1 MiB to which
//! [`trampoline`]'s bytes were copied:
//!
//! ```text
//!   SIPI, vector v         cs = v << 8, ip = 0, everything off
//!      |
//!   second_start16         our GDT, CR0.PE
//!      |
//!   second_start32         caches on (INIT leaves them off); edi = 0: no start info
//!      |
//!   boot_paging            as the first CPU did
//!      |
//!   _start64 -> second_start64     rsp = second stack, unless another CPU has taken it
//!      |
//!   second_entry
//! ```
//!
//! # Invariants
//!
//! - CR4.LA57 is set here, before paging, or never: it cannot be changed in long mode. Everything
//!   later reads the depth from CR4, and all CPUs take the same one.
//! - Nothing in `.boot` is written after the first CPU has left it, but for the far return that each
//!   CPU leaves by, which is the same for all.
//!
//! Sources: the Xen project's `docs/misc/pvh.pandoc` (entry state) and its note type 18,
//! `XEN_ELFNOTE_PHYS32_ENTRY`; Intel SDM vol. 3A, 4.1.2 "Paging-mode enabling", 5.5 "Page tables
//! of 4-level and 5-level paging", 10.8.5 "Initializing IA-32e mode".

use super::{console, machine, main, processors};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_x86::Feature;

/// The time-stamp counter at the first instruction of ours.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// Cycles of the time-stamp counter since the first instruction of ours.
pub(super) fn cycles_since_start() -> u64 {
    machine::time_stamp().wrapping_sub(STARTED.load(Ordering::Relaxed))
}

/// How many bytes of physical memory, from 0 on, the boot tables' direct map reaches.
pub(super) fn reach_bytes() -> u64 {
    // The same question as the stub's; and leaves above the CPU's own width must not be used.
    let features = machine::features();
    let mapped: u64 = if features.has(Feature::GIB_LEAVES) { 512 << 30 } else { 4 << 30 };
    mapped.min(1 << features.physical_bits)
}

/// Where `_start64` goes.
extern "sysv64" fn kernel_entry(start_info: u64, started: u64) -> ! {
    STARTED.store(started, Ordering::Relaxed);
    console::init();
    main(start_info)
}

/// Where `second_start64` goes, on the stack of the second CPU.
extern "sysv64" fn second_entry() -> ! {
    processors::second_main()
}

/// How many CPUs came by `second_start64`.
static SECONDS: AtomicU32 = AtomicU32::new(0);

/// The bytes that belong into a page below 1 MiB for CPUs to start at, at the page's beginning.
pub(super) fn trampoline() -> &'static [u8] {
    unsafe extern "C" {
        static second_start16: u8;
        static second_start16_end: u8;
    }
    let len = (&raw const second_start16_end).addr() - (&raw const second_start16).addr();
    // SAFETY: the linker puts both symbols into `.rodata`, the second behind the first; nobody
    // writes there.
    unsafe { core::slice::from_raw_parts(&raw const second_start16, len) }
}

global_asm!(
    r#"
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4                         # bytes of the name
    .long 8                         # bytes of the value
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad _start32
    .popsection

    .pushsection .boot.tables, "aw", @progbits
    .balign 4096
boot_pml5:
    .quad boot_pml4 + 0x3           # present, writable
    .fill 255, 8, 0
    .quad boot_pml4_direct + 0x3
    .fill 254, 8, 0
    .quad boot_pml4 + 0x3
boot_pml4:
    .quad boot_pdpt_low + 0x3
    .fill 255, 8, 0
    .quad boot_pdpt_low + 0x3
    .fill 254, 8, 0
    .quad boot_pdpt_high + 0x3
boot_pml4_direct:
    .quad boot_pdpt_low + 0x3
    .fill 511, 8, 0
boot_pdpt_low:
    .quad boot_pd + 0x0003
    .quad boot_pd + 0x1003
    .quad boot_pd + 0x2003
    .quad boot_pd + 0x3003
    .fill 508, 8, 0
boot_pdpt_high:
    .fill 510, 8, 0
    .quad boot_pd + 0x3
    .quad 0
boot_pdpt_huge:
    .set boot_leaf, 0
    .rept 512
    .quad boot_leaf + 0x83
    .set boot_leaf, boot_leaf + 0x40000000
    .endr
boot_pd:
    .set boot_leaf, 0
    .rept 2048
    .quad boot_leaf + 0x83          # present, writable, a leaf of 2 MiB
    .set boot_leaf, boot_leaf + 0x200000
    .endr
    .popsection

    .pushsection .boot, "awx", @progbits
    .code32
    .global _start32
_start32:
    cli
    cld
    mov edi, ebx                    # hvm_start_info, above cpuid's reach
    rdtsc
    mov esi, eax                    # the start time, kept in esi and ebp
    mov ebp, edx
    mov esp, offset boot_small_stack_end

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb boot_no_long_mode
    mov eax, 0x80000001
    cpuid
    and edx, (1 << 29) | (1 << 20)  # long mode, NX
    cmp edx, (1 << 29) | (1 << 20)
    jne boot_no_long_mode

    mov eax, 0x80000001
    cpuid
    bt edx, 26                      # leaves of 1 GiB
    jnc 0f
    mov eax, offset boot_pdpt_huge
    or eax, 0x3
    mov ecx, offset boot_pml4
    mov [ecx + 256 * 8], eax
    mov ecx, offset boot_pml4_direct
    mov [ecx], eax
0:
boot_paging:
    xor eax, eax
    cpuid
    xor ecx, ecx
    cmp eax, 7
    mov eax, 0
    jb 1f
    mov eax, 7
    cpuid                           # ecx bit 16: LA57
1:
    mov eax, cr4
    or eax, 1 << 5                  # PAE
    mov ebx, offset boot_pml4
    bt ecx, 16
    jnc 2f
    or eax, 1 << 12                 # LA57
    mov ebx, offset boot_pml5
2:
    mov cr4, eax
    mov cr3, ebx

    mov ecx, 0xc0000080             # EFER
    rdmsr
    or eax, (1 << 8) | (1 << 11)    # LME, NXE
    wrmsr

    mov eax, cr0
    or eax, (1 << 31) | (1 << 16)   # PG, WP
    mov cr0, eax

    mov eax, offset boot_gdt_pointer
    lgdt [eax]
    # The assembler would take 16 bits for `push offset` and for the address of LGDT.
    mov eax, offset _start64
    push 8
    push eax
    retf

boot_no_long_mode:
    mov ebx, offset boot_complaint
    mov dx, 0x3f8
3:  mov al, [ebx]
    test al, al
    jz 4f
    out dx, al
    inc ebx
    jmp 3b
4:  mov al, 0x7f                    # ExitCode::Failure
    out 0xf4, al
5:  hlt
    jmp 5b

second_start32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x9fffffff             # without CD, NW
    mov cr0, eax
    mov esp, offset boot_small_stack_end
    xor edi, edi
    jmp boot_paging

    .code64
_start64:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    test edi, edi
    jz second_start64
    mov esi, esi                    # clears bits 63:32
    shl rbp, 32
    or rsi, rbp
    mov edi, edi
    mov rsp, offset boot_stack_end
    xor ebp, ebp                    # the end of the frame chain
    push rbp
    movabs rax, offset {entry}
    jmp rax

second_start64:
    mov eax, 1
    lock xadd dword ptr [{seconds}], eax
    test eax, eax
    jnz 6f
    mov rsp, offset second_stack_end
    xor ebp, ebp
    push rbp
    movabs rax, offset {second_entry}
    jmp rax
6:  cli                             # there is one stack, and it is taken
    hlt
    jmp 6b

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff        # code, 64-bit, ring 0
    .quad 0x00cf92000000ffff        # data
    .quad 0x00cf9a000000ffff        # code, 32-bit, ring 0
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt
boot_complaint:
    .asciz "vellum-kernel: this CPU lacks long mode or NX\n"
    .balign 16
    .fill 256, 1, 0
boot_small_stack_end:
    .popsection

    .pushsection .rodata.trampoline, "a", @progbits
    .code16
second_start16:
    cli
    cld
    mov ax, cs
    mov ds, ax
    # LGDT of six bytes, at an offset into this page: the assembler would take a 24-bit base.
    .byte 0x66, 0x0f, 0x01, 0x16
    .word boot_gdt_copy - second_start16
    mov eax, cr0
    or al, 1                        # PE
    mov cr0, eax
    # A far jump to 18:second_start32, with an offset of 32 bits.
    .byte 0x66, 0xea
    .long second_start32
    .word 0x18
boot_gdt_copy:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt
second_start16_end:
    .code64
    .popsection
    "#,
    entry = sym kernel_entry,
    second_entry = sym second_entry,
    seconds = sym SECONDS,
);
