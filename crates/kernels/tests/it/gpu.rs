//! What the tests share: memory of the emulated GPU, launches, noise, comparisons.

use gradus_kernels::{Emulator, Launch, emulator};
use std::ffi::c_void;
use std::io::Write;
use std::ptr;

/// The emulator, or a line that says the test is skipped.
pub fn gpu() -> Option<Emulator> {
    let found = emulator();
    if found.is_none() {
        // Not eprintln: the test harness would keep it to itself.
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {name} (no emulator: feature `emulate`?)");
    }
    found
}

/// The upper half of an f32.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Bf16 {
    /// To the nearest, of two equally near ones to the even one.
    pub fn rounded(x: f32) -> Bf16 {
        let bits = x.to_bits();
        match x.is_nan() {
            true => Bf16(0x7fff),
            false => Bf16(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16),
        }
    }
}

/// What lies in the GPU's memory.
pub trait Element: Copy + PartialEq + std::fmt::Debug {
    /// What surrounds a buffer, and what it holds before it is written: no number.
    const RUBBISH: Self;
}

/// A number that kernels compute with.
pub trait Number: Element {
    /// As kernels' names have it.
    const NAME: &'static str;
    /// Error of rounding, relative.
    const EPSILON: f64;
    const BF16: bool;
    fn of(x: f32) -> Self;
    fn wide(self) -> f64;
}

impl Element for f32 {
    const RUBBISH: f32 = f32::from_bits(u32::MAX);
}
impl Element for Bf16 {
    const RUBBISH: Bf16 = Bf16(u16::MAX);
}
impl Element for f64 {
    const RUBBISH: f64 = f64::from_bits(u64::MAX);
}
impl Element for u32 {
    const RUBBISH: u32 = u32::MAX;
}

impl Number for f32 {
    const NAME: &'static str = "f32";
    const EPSILON: f64 = 1.0 / (1u32 << 24) as f64;
    const BF16: bool = false;
    fn of(x: f32) -> f32 {
        x
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}
impl Number for Bf16 {
    const NAME: &'static str = "bf16";
    const EPSILON: f64 = 1.0 / 256.0;
    const BF16: bool = true;
    fn of(x: f32) -> Bf16 {
        Bf16::rounded(x)
    }
    fn wide(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.0) << 16))
    }
}

/// Elements of rubbish on both sides of a buffer.
const FENCE: usize = 64;

/// Memory of the GPU: reading beside it gives rubbish, writing beside it is found out.
#[derive(Clone)]
pub struct Buffer<T> {
    all: Vec<T>,
    from: usize,
    len: usize,
}

impl<T: Element> Buffer<T> {
    pub fn new(data: &[T]) -> Buffer<T> {
        Buffer::shifted(data, 0)
    }

    /// Begins `shift` elements behind a place that is aligned to 32 bytes.
    pub fn shifted(data: &[T], shift: usize) -> Buffer<T> {
        let mut all = vec![T::RUBBISH; data.len() + 2 * FENCE + 32];
        let aligned = all.as_ptr().align_offset(32).min(31);
        let from = FENCE + aligned + shift;
        all[from..from + data.len()].copy_from_slice(data);
        Buffer { all, from, len: data.len() }
    }

    /// Nothing written yet.
    pub fn blank(len: usize) -> Buffer<T> {
        Buffer::new(&vec![T::RUBBISH; len])
    }

    pub fn read(&self) -> Arg {
        self.read_at(0)
    }

    /// From element `at` on.
    pub fn read_at(&self, at: usize) -> Arg {
        Arg(self.all[self.from + at..].as_ptr() as u64)
    }

    pub fn write(&mut self) -> Arg {
        self.write_at(0)
    }

    pub fn write_at(&mut self, at: usize) -> Arg {
        Arg(self.all[self.from + at..].as_mut_ptr() as u64)
    }

    /// What it holds.
    ///
    /// # Panics
    /// When something was written beside it.
    pub fn get(&self) -> &[T] {
        let bytes = |part: &[T]| format!("{part:?}");
        let rubbish = |part: &[T]| bytes(part) == bytes(&vec![T::RUBBISH; part.len()]);
        let (before, rest) = self.all.split_at(self.from);
        let (data, behind) = rest.split_at(self.len);
        assert!(rubbish(before), "written before the buffer");
        assert!(rubbish(behind), "written behind the buffer");
        data
    }
}

impl<T: Number> Buffer<T> {
    pub fn of(data: &[f32]) -> Buffer<T> {
        Buffer::new(&data.iter().map(|x| T::of(*x)).collect::<Vec<_>>())
    }

    pub fn wide(&self) -> Vec<f64> {
        self.get().iter().map(|x| x.wide()).collect()
    }
}

/// An argument's value, in its first bytes.
#[derive(Clone, Copy)]
pub struct Arg(u64);

pub const NULL: Arg = Arg(0);

impl From<u32> for Arg {
    fn from(x: u32) -> Arg {
        Arg(u64::from(x))
    }
}
impl From<usize> for Arg {
    /// Kernels' sizes are u32.
    fn from(x: usize) -> Arg {
        Arg(u64::from(u32::try_from(x).unwrap()))
    }
}
impl From<u64> for Arg {
    fn from(x: u64) -> Arg {
        Arg(x)
    }
}
impl From<f32> for Arg {
    fn from(x: f32) -> Arg {
        Arg(u64::from(x.to_bits()))
    }
}

/// Launches a kernel with these arguments' values.
pub fn try_run(gpu: Emulator, kernel: &str, launch: Launch, args: &[Arg]) -> Result<(), String> {
    let pointers: Vec<*const c_void> =
        args.iter().map(|arg| ptr::from_ref(&arg.0).cast()).collect();
    // SAFETY: the values are those of the kernel's arguments, and pointers are into buffers that the
    // caller holds. That the lengths are right is what the tests are for.
    unsafe { gpu.launch(kernel, launch, &pointers) }
}

pub fn run(gpu: Emulator, kernel: &str, launch: Launch, args: &[Arg]) {
    if let Err(error) = try_run(gpu, kernel, launch, args) {
        panic!("{error}");
    }
}

/// `[a, b as u32, ...]` as arguments.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::gpu::Arg::from($arg)),*] };
}

/// A stream of numbers from a seed (splitmix64).
pub struct Stream(pub u64);

impl Stream {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
}

/// Normal-ish numbers.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream(seed);
    (0..n).map(|_| ((0..6).map(|_| stream.unit()).sum::<f64>() - 3.0) as f32).collect()
}

/// The numbers as T holds them.
pub fn rounded<T: Number>(data: &[f32]) -> Vec<f64> {
    data.iter().map(|x| T::of(*x).wide()).collect()
}

/// Every number is within `error` of the expected one, relative to it or, where that is smaller, to
/// the root of the mean square of all.
#[track_caller]
pub fn close(what: &str, found: &[f64], expected: &[f64], error: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let squares: f64 = expected.iter().filter(|x| x.is_finite()).map(|x| x * x).sum();
    let size = (squares / expected.len().max(1) as f64).sqrt();
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        let well = if e.is_finite() { (f - e).abs() <= error * size.max(e.abs()) } else { f == e };
        assert!(well, "{what}, number {at}: {f}, expected {e} (error {error}, size {size})");
    }
}
