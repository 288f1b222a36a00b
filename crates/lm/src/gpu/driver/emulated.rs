//! A device that is this machine's CPU: the kernels' own sources, compiled for it, and products by
//! the CPU's twin. For tests; slow.

use super::{ElementType, RawOperand, RawProduct};
use crate::error::LmError;
use crate::ops::{Mat, MatMut, matmul};
use gradus_kernels::Launch;
use half::bf16;
use std::ffi::c_void;

/// The kernels on the CPU.
pub(crate) struct Emulated(gradus_kernels::Emulator);

#[expect(unsafe_code, reason = "a device's memory is read by address")]
fn read(kind: ElementType, address: u64, len: usize) -> Vec<f32> {
    // SAFETY: `kernels::product` checks that the operand has this many numbers, and the handle that
    // it holds keeps them.
    unsafe {
        match kind {
            ElementType::Bf16 => {
                let values = std::slice::from_raw_parts(address as *const bf16, len);
                values.iter().map(|v| v.to_f32()).collect()
            }
            _ => std::slice::from_raw_parts(address as *const f32, len).to_vec(),
        }
    }
}

fn operand<'a>(side: &RawOperand, values: &'a [f32], rows: usize, columns: usize) -> Mat<'a> {
    match side.transposed {
        true => Mat::strided(values, columns, rows, side.stride).t(),
        false => Mat::strided(values, rows, columns, side.stride),
    }
}

impl Emulated {
    pub fn new() -> Option<Emulated> {
        gradus_kernels::emulator().map(Emulated)
    }

    #[expect(unsafe_code, reason = "kernels read and write by address")]
    pub fn launch(&self, name: &str, launch: Launch, args: &[u64]) -> Result<(), LmError> {
        let pointers: Vec<*const c_void> =
            args.iter().map(|arg| (&raw const *arg).cast()).collect();
        // SAFETY: as for a GPU: arguments are what the kernel is declared with, and long enough.
        unsafe { self.0.launch(name, launch, &pointers) }
            .map_err(|why| LmError::Training(format!("kernel {name}: {why}")))
    }

    #[expect(unsafe_code, reason = "a device's memory is written by address")]
    pub fn product(&self, p: &RawProduct) -> Result<(), LmError> {
        let side = |side: &RawOperand| read(side.kind, side.address, side.len);
        let (a, b) = (side(&p.a), side(&p.b));
        let mut c = vec![0f32; p.rows * p.columns];
        matmul(
            MatMut::new(&mut c, p.rows, p.columns),
            operand(&p.a, &a, p.rows, p.inner),
            operand(&p.b, &b, p.inner, p.columns),
            false,
            p.scale,
        );
        for (row, values) in c.chunks_exact(p.columns).enumerate() {
            for (column, value) in values.iter().enumerate() {
                let at = row * p.c.stride + column;
                // SAFETY: `kernels::product` checks that C reaches that far.
                unsafe {
                    match p.c.kind {
                        ElementType::Bf16 => {
                            let to = (p.c.address as *mut bf16).add(at);
                            let before = if p.add { (*to).to_f32() } else { 0.0 };
                            *to = bf16::from_f32(before + value);
                        }
                        _ => {
                            let to = (p.c.address as *mut f32).add(at);
                            *to = value + if p.add { *to } else { 0.0 };
                        }
                    }
                }
            }
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "a device's memory is written by address")]
    pub fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), LmError> {
        // SAFETY: `DeviceBuffer::write` checks the length.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    #[expect(unsafe_code, reason = "a device's memory is read by address")]
    pub fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), LmError> {
        // SAFETY: `DeviceBuffer::read` makes room for as many.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    #[expect(unsafe_code, reason = "a device's memory is written by address")]
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), LmError> {
        // SAFETY: `DeviceBuffer::copy` checks that both are as long.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }
}
