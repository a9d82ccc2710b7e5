# A UEFI program that starts the boot loader beside it, and starts the machine again where that comes back.
#
# A boot loader that cannot start an entry (its boot image is damaged, or signed by nobody) gives up, and so does the firmware: it
# shows a menu to nobody, for ever. With this in between the machine starts again after a while; each start uses up one of the
# entry's tries, until the loader takes another entry.
#
# Assembled by `as` and laid out by hand, since it is a file of its own with nothing to link: Microsoft PE format (PE32+, "Optional
# Header"), UEFI specification 2.10, sections 2.1 (images), 4.3 (system table), 4.4 (boot services), 4.5 (runtime services). All of
# it is independent of where it is loaded. It writes to its stack and to memory that it asked for, never to itself.

        .intel_syntax noprefix
        .text

        .set headers, 0x200     # bytes before the code in the file, a multiple of `FileAlignment`
        .set code_at, 0x1000    # where the code is in memory, from the image's beginning
        .set code_size, 0x400
        .set relocations_at, 0x2000
        .set relocations_size, 0x200

# --- headers ------------------------------------------------------------------------------------------------
file:
        .ascii "MZ"
        .org 0x3c
        .long 0x40              # where "PE" is
        .ascii "PE\0\0"
        .short 0x8664           # x86-64
        .short 2                # sections
        .long 0, 0, 0           # no time, so that it is the same each time; no symbols
        .short optional_end - optional
        .short 0x0206           # executable, no line numbers, no debugging
optional:
        .short 0x20b            # PE32+
        .byte 0, 0
        .long code_size, relocations_size, 0
        .long code_at           # where it begins to run
        .long code_at
        .quad 0                 # anywhere
        .long 0x1000, 0x200     # alignment in memory, in the file
        .short 0, 0, 0, 0, 0, 0
        .long 0
        .long 0x3000            # bytes in memory
        .long headers
        .long 0                 # no checksum: firmware asks for none
        .short 10               # a UEFI application
        .short 0x0100           # what is data is not executed
        .quad 0, 0, 0, 0
        .long 0
        .long 6                 # tables, of which the fifth is for a signature
        .quad 0, 0, 0, 0, 0
        .long relocations_at, 12
optional_end:
        .ascii ".text\0\0\0"
        .long code_size, code_at, code_size, headers
        .long 0, 0, 0
        .long 0x60000020        # code that is read and executed
        .ascii ".reloc\0\0"
        .long relocations_size, relocations_at, relocations_size, headers + code_size
        .long 0, 0, 0
        .long 0x42000040        # data that is read, and not needed later

# --- code: rcx is the handle of this image, rdx the system table ---------------------------------------------
        .org headers
        sub rsp, 0x68           # room for what a callee may use of it, its fifth and sixth argument, and ours; aligned
        mov r12, rcx
        mov r13, rdx
        mov r14, [rdx + 0x60]   # boot services

        mov rcx, r12            # HandleProtocol: what is known of this image
        lea rdx, [rip + loaded_image_protocol]
        lea r8, [rsp + 0x40]
        call [r14 + 0x98]
        test rax, rax
        jnz again
        mov rax, [rsp + 0x40]
        mov rcx, [rax + 0x18]   # HandleProtocol: the path to the partition that it came from
        lea rdx, [rip + device_path_protocol]
        lea r8, [rsp + 0x48]
        call [r14 + 0x98]
        test rax, rax
        jnz again

        mov rsi, [rsp + 0x48]   # how long that path is before its end (section 10.3.1)
        mov rdi, rsi
next:   cmp byte ptr [rdi], 0x7f
        je measured
        movzx eax, word ptr [rdi + 2]
        cmp eax, 4
        jb again
        add rdi, rax
        jmp next
measured:
        sub rdi, rsi
        mov ecx, 4              # AllocatePool: data of boot services
        lea rdx, [rdi + loader_end - loader]
        lea r8, [rsp + 0x50]
        call [r14 + 0x40]
        test rax, rax
        jnz again
        mov rcx, rdi            # the path of the loader: that of the partition, and its own
        mov rdi, [rsp + 0x50]
        rep movsb
        lea rsi, [rip + loader]
        mov ecx, offset loader_end - loader
        rep movsb

        xor ecx, ecx            # LoadImage: the firmware checks the signature, where it is to
        mov rdx, r12
        mov r8, [rsp + 0x50]
        xor r9d, r9d
        mov [rsp + 0x20], r9
        lea rax, [rsp + 0x58]
        mov [rsp + 0x28], rax
        call [r14 + 0xc8]
        test rax, rax
        jnz again
        mov rcx, [rsp + 0x58]   # StartImage
        xor edx, edx
        xor r8d, r8d
        call [r14 + 0xd0]

again:  mov rcx, [r13 + 0x40]   # OutputString
        lea rdx, [rip + text]
        call [rcx + 8]
        mov ecx, 10000000       # Stall, in microseconds
        call [r14 + 0xf8]
        mov rax, [r13 + 0x58]   # ResetSystem: cold
        xor ecx, ecx
        xor edx, edx
        xor r8d, r8d
        xor r9d, r9d
        call [rax + 0x68]
stop:   hlt
        jmp stop

# --- constants: UEFI specification 2.10, sections 9.1 and 10.2 ------------------------------------------------
        .balign 8
loaded_image_protocol:
        .long 0x5b1b31a1
        .short 0x9562, 0x11d2
        .byte 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
device_path_protocol:
        .long 0x09576e91
        .short 0x6d3f, 0x11d2
        .byte 0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b

loader: .byte 4, 4              # a file's path (section 10.3.5.4)
        .short loader_path_end - loader
        .string16 "\\EFI\\systemd\\systemd-bootx64.efi"
loader_path_end:
        .byte 0x7f, 0xff, 4, 0  # the end
loader_end:

        .balign 2
text:   .string16 "The boot loader came back without starting anything. Starting again in 10 s.\r\n"

# --- relocations: none, in one block, since some firmware takes an image without any for one that cannot be moved ------------
        .org headers + code_size
        .long code_at, 12
        .short 0, 0
        .org headers + code_size + relocations_size
