//! Compiles `cuda/all.cu`: with the feature `cuda` to a fat binary by nvcc, with the feature `emulate`
//! for this machine by a C++ compiler.
//!
//! | variable | what for |
//! | --- | --- |
//! | `NVCC` | the compiler; else that of `CUDA_HOME`, else the one in `PATH` |
//! | `CUDA_COMPUTE_CAP` | the GPU it is compiled for, and the oldest that it works on: 80 (A100, the default), 90 (H100) |
//! | `NVCC_CCBIN` | nvcc's host compiler, where the one it finds is not to its taste |

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cuda");
    println!("cargo:rustc-check-cfg=cfg(emulator)");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        fat_binary(&out)?;
    }
    #[cfg(feature = "emulate")]
    emulator();
    Ok(())
}

/// The variable's value where it has one; cargo asks again when it changes.
fn variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn nvcc() -> PathBuf {
    let home = variable("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    match (variable("NVCC"), home) {
        (Some(named), _) => named.into(),
        (None, Some(nvcc)) if nvcc.exists() => nvcc,
        (None, _) => "nvcc".into(),
    }
}

/// Machine code for one GPU, and PTX that the driver makes code of for newer ones; beside it what the
/// assembler says of each kernel.
fn fat_binary(out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let nvcc = nvcc();
    // The compiler in PATH is another one when PATH is.
    variable("PATH");
    let capability = variable("CUDA_COMPUTE_CAP").unwrap_or_else(|| "80".to_owned());
    let capability = capability.replace('.', "");
    let mut command = std::process::Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin", "-Werror=all-warnings", "-Xptxas", "-v"]);
    command.arg(format!(
        "-gencode=arch=compute_{capability},code=[sm_{capability},compute_{capability}]"
    ));
    if let Some(host) = variable("NVCC_CCBIN") {
        command.arg("-ccbin").arg(host);
    }
    command.arg("-o").arg(out.join("kernels.fatbin")).arg("cuda/all.cu");
    let done = command.output().map_err(|error| {
        format!(
            "{} does not start ({error}): the feature `cuda` needs NVIDIA's compiler; set NVCC, or \
             CUDA_HOME, or see scripts/build-cuda --env",
            nvcc.display()
        )
    })?;
    let said = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        return Err(format!("{command:?}: {}\n{said}", done.status).into());
    }
    fs::write(out.join("usage.txt"), said.as_bytes())?;
    fs::metadata(out.join("kernels.fatbin"))?;
    Ok(())
}

/// Where there is no compiler the crate is built all the same, and says so: `emulator()` is None.
#[cfg(feature = "emulate")]
fn emulator() {
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|target| target == "msvc") {
        println!("cargo:warning=the kernels are not emulated on Windows: their tests are skipped");
        return;
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).warnings(true).extra_warnings(true);
    build.flag("-Wno-unknown-pragmas");
    // Products and sums are rounded one by one, as the kernels' text has them. Rows are read in
    // packs of 16 bytes, which C++ would take for other objects than the numbers in them.
    build.flag("-ffp-contract=off").flag("-fno-strict-aliasing").flag("-fno-exceptions");
    build.file("cuda/emulate.cpp");
    let found = build.try_get_compiler().is_ok_and(|compiler| {
        compiler.to_command().arg("--version").output().is_ok_and(|done| done.status.success())
    });
    if !found {
        println!("cargo:warning=no C++ compiler: the kernels' tests are skipped");
        return;
    }
    build.compile("gradus_emulator");
    println!("cargo:rustc-cfg=emulator");
}
