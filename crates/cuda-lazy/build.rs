//! Writes one trampoline for every name in `syms.txt`, and the table of names that goes with them.
//!
//! A trampoline jumps to where its slot points. While the slot is empty it keeps the registers that
//! carry arguments, asks `resolve` (in `src/bind.rs`) for the address, and jumps there. Nothing is
//! known of any signature, and nothing needs to be: arguments on the stack are where they were.

use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

/// The library of a name: a variant of `Library` in `src/places.rs`.
fn library(name: &str) -> &'static str {
    let prefixes =
        [("cublasLt", "CublasLt"), ("cublas", "Cublas"), ("curand", "Curand"), ("nvrtc", "Nvrtc")];
    let found = prefixes.into_iter().find(|(prefix, _)| name.starts_with(prefix));
    found.map_or("Driver", |(_, library)| library)
}

/// Braces are filled in by `global_asm!`.
fn trampolines(names: &[&str]) -> Result<String, std::fmt::Error> {
    let mut text = String::from(".text\n");
    for (at, name) in names.iter().enumerate() {
        writeln!(
            text,
            ".globl {name}\n.hidden {name}\n.type {name},@function\n.p2align 4\n{name}:\n \
             movq {{slots}}+{}(%rip), %r11\n testq %r11, %r11\n je 1f\n jmpq *%r11\n\
             1: movl ${at}, %r11d\n jmp cuda_lazy_first_call\n.size {name}, .-{name}",
            8 * at
        )?;
    }
    let integers = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax"];
    text += ".p2align 4\ncuda_lazy_first_call:\n";
    for register in integers {
        writeln!(text, " pushq %{register}")?;
    }
    // Seven pushes and the return address: the stack stands at a multiple of 16, as a call wants.
    text += " subq $128, %rsp\n";
    for at in 0..8 {
        writeln!(text, " movups %xmm{at}, {}(%rsp)", 16 * at)?;
    }
    text += " movl %r11d, %edi\n call {resolve}\n movq %rax, %r11\n";
    for at in 0..8 {
        writeln!(text, " movups {}(%rsp), %xmm{at}", 16 * at)?;
    }
    text += " addq $128, %rsp\n";
    for register in integers.iter().rev() {
        writeln!(text, " popq %{register}")?;
    }
    text += " jmpq *%r11\n";
    Ok(text)
}

fn table(names: &[&str]) -> Result<String, std::fmt::Error> {
    let mut text = format!("static NAMES: [(&CStr, Library); {}] = [\n", names.len());
    for name in names {
        writeln!(text, "    (c\"{name}\", Library::{}),", library(name))?;
    }
    text += "];\n";
    Ok(text)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=syms.txt");
    let list = fs::read_to_string("syms.txt")?;
    let names: Vec<&str> = list.lines().filter(|line| !line.is_empty()).collect();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("trampolines.s"), trampolines(&names)?)?;
    fs::write(out.join("names.rs"), table(&names)?)?;
    Ok(())
}
