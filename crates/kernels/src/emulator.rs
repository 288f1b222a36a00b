//! The kernels on this machine's CPU: the Rust side of `cuda/emulate.cpp`.

use crate::Launch;
use std::ffi::c_void;

/// The kernels on this machine's CPU.
#[derive(Clone, Copy, Debug)]
pub struct Emulator {
    seed: u64,
}

/// The kernels on this machine's CPU; None without the feature `emulate` or where no C++ compiler
/// was found when it was built.
pub fn emulator() -> Option<Emulator> {
    cfg!(emulator).then_some(Emulator { seed: 0 })
}

impl Emulator {
    /// Another order of blocks and threads, and nothing else.
    pub fn with_seed(self, seed: u64) -> Emulator {
        Emulator { seed }
    }

    /// Names of the kernels it has: all of [`KERNELS`](crate::KERNELS), and some that break the
    /// rules, by which the emulator itself is tested (`fault_*`).
    pub fn kernels(&self) -> Vec<&'static str> {
        imp::kernels()
    }

    /// Runs a kernel to its end. `args` are what `cuLaunchKernel` takes: a pointer to each argument's
    /// value. One launch runs at a time; others wait.
    ///
    /// # Errors
    /// What the kernel did wrong, or what is wrong with the launch.
    ///
    /// # Safety
    /// Each of `args` must point to a value of its argument's type, and pointers among these values
    /// must be valid for what the kernel reads and writes.
    #[expect(unsafe_code, reason = "a kernel reads and writes through the pointers it is given")]
    pub unsafe fn launch(
        &self,
        kernel: &str,
        launch: Launch,
        args: &[*const c_void],
    ) -> Result<(), String> {
        // SAFETY: what the caller promises.
        unsafe { imp::launch(kernel, launch, self.seed, args) }
    }
}

#[cfg(not(emulator))]
mod imp {
    //! There is none.

    use super::{Launch, c_void};

    pub fn kernels() -> Vec<&'static str> {
        Vec::new()
    }

    #[expect(unsafe_code, reason = "the same signature as where there is an emulator")]
    pub unsafe fn launch(_: &str, _: Launch, _: u64, _: &[*const c_void]) -> Result<(), String> {
        Err("the kernels were not compiled for this machine".to_owned())
    }
}

#[cfg(emulator)]
#[expect(unsafe_code, reason = "the emulator is written in C++")]
mod imp {
    //! Calls into `cuda/emulate.cpp`.

    use super::{Launch, c_void};
    use std::ffi::{CStr, CString, c_char};
    use std::sync::{Mutex, PoisonError};

    /// The emulator's registers are global: a GPU of one.
    static GPU: Mutex<()> = Mutex::new(());

    // SAFETY: the signatures at the end of cuda/emulate.cpp.
    unsafe extern "C" {
        fn gradus_emulator_kernel(at: usize) -> *const c_char;
        fn gradus_emulator_launch(
            kernel: *const c_char,
            shape: *const u32,
            seed: u64,
            args: *const *const c_void,
            args_len: usize,
            said: *mut c_char,
            said_len: usize,
        ) -> bool;
    }

    pub fn kernels() -> Vec<&'static str> {
        let name = |at| {
            // SAFETY: null or a string literal.
            let name = unsafe {
                let name = gradus_emulator_kernel(at);
                (!name.is_null()).then(|| CStr::from_ptr(name))
            };
            name.and_then(|name| name.to_str().ok())
        };
        (0..).map_while(name).collect()
    }

    pub unsafe fn launch(
        kernel: &str,
        launch: Launch,
        seed: u64,
        args: &[*const c_void],
    ) -> Result<(), String> {
        let name = CString::new(kernel).map_err(|error| error.to_string())?;
        let [x, y, z] = launch.grid;
        let shape = [x, y, z, launch.block, launch.shared_bytes];
        let mut said = [0; 512];
        let _turn = GPU.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: lengths are those of what is pointed to; the arguments are the caller's.
        let well = unsafe {
            gradus_emulator_launch(
                name.as_ptr(),
                shape.as_ptr(),
                seed,
                args.as_ptr(),
                args.len(),
                said.as_mut_ptr(),
                said.len(),
            )
        };
        if well {
            return Ok(());
        }
        // SAFETY: a failure leaves a string that ends within `said`.
        let said = unsafe { CStr::from_ptr(said.as_ptr()) };
        Err(format!("{kernel}: {}", said.to_string_lossy()))
    }
}
