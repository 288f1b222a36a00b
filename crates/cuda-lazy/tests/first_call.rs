//! Entry points against libraries of the test's own making: a function may have any signature, for
//! a trampoline knows none. Each scenario is a process of its own, for what is bound stays bound.
//!
//! Needs a C compiler (`cc`), as linking does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unsafe_code,
    reason = "a test that stops has failed, which is what it is for"
)]

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::process::Command;

/// Every register that carries an argument, and two of each kind on the stack. The integers go to
/// the array, the doubles' digits into the answer.
const PROBE: &str = r#"
double NAME(long *out, long a, long b, long c, long d, long e,
            double p, double q, double r, double s, double t, double u, double v, double w,
            long f, double x, long g, double y) {
    out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e; out[5] = f; out[6] = g;
    double all[] = {p, q, r, s, t, u, v, w, x, y}, sum = 0;
    for (int i = 0; i < 10; i++) sum = sum * 10 + all[i];
    return sum;
}
/* Loading spoils every register that it may: what is not kept around it is lost. */
__attribute__((constructor)) static void spoil(void) {
    __asm__ volatile(
        "pcmpeqd %%xmm0, %%xmm0\n pcmpeqd %%xmm1, %%xmm1\n pcmpeqd %%xmm2, %%xmm2\n"
        "pcmpeqd %%xmm3, %%xmm3\n pcmpeqd %%xmm4, %%xmm4\n pcmpeqd %%xmm5, %%xmm5\n"
        "pcmpeqd %%xmm6, %%xmm6\n pcmpeqd %%xmm7, %%xmm7\n"
        "movq $-1, %%rax\n movq $-1, %%rcx\n movq $-1, %%rdx\n movq $-1, %%rsi\n"
        "movq $-1, %%rdi\n movq $-1, %%r8\n movq $-1, %%r9\n" :::
        "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
        "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9");
}
"#;

type Probe = unsafe extern "C" fn(
    *mut i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    f64,
    f64,
    f64,
    f64,
    f64,
    f64,
    f64,
    f64,
    i64,
    f64,
    i64,
    f64,
) -> f64;

unsafe extern "C" {
    fn cuMemcpyHtoD_v2();
    fn cublasCreate_v2();
    fn cublasLtCreate();
    fn curandCreateGenerator();
    fn nvrtcCreateProgram();
    #[link_name = "cuInit"]
    fn cu_init(flags: u32) -> i32;
    #[link_name = "cublasDestroy_v2"]
    fn cublas_destroy(handle: usize) -> i32;
    #[link_name = "curandDestroyGenerator"]
    fn curand_destroy(generator: usize) -> i32;
    #[link_name = "cublasGetStatusString"]
    fn cublas_text(status: i32) -> *const c_char;
}

/// One of each library.
fn probes() -> [Probe; 5] {
    let entries: [unsafe extern "C" fn(); 5] = [
        cuMemcpyHtoD_v2,
        cublasCreate_v2,
        cublasLtCreate,
        curandCreateGenerator,
        nvrtcCreateProgram,
    ];
    // SAFETY: the functions in the libraries of this test have this signature.
    entries.map(|entry| unsafe { std::mem::transmute::<unsafe extern "C" fn(), Probe>(entry) })
}

const LIBRARIES: [(&str, &str); 5] = [
    ("libcuda.so.1", "cuMemcpyHtoD_v2"),
    ("libcublas.so.13", "cublasCreate_v2"),
    ("libcublasLt.so.13", "cublasLtCreate"),
    ("libcurand.so.10", "curandCreateGenerator"),
    ("libnvrtc.so.13", "nvrtcCreateProgram"),
];

fn compile(dir: &Path, library: &str, source: &str) {
    let file = dir.join("probe.c");
    std::fs::write(&file, source).unwrap();
    let flags = ["-shared", "-fPIC", "-O1", "-o"];
    let done = Command::new("cc").args(flags).arg(dir.join(library)).arg(&file).status();
    assert!(done.expect("cc runs").success(), "cc {library}");
}

/// Runs one of the ignored tests below in a process of its own.
fn alone(scenario: &str, dirs: &Path) {
    let this = std::env::current_exe().unwrap();
    let out = Command::new(this)
        .args(["--exact", scenario, "--ignored", "--nocapture"])
        .env("GRADUS_CUDA_DIRS", dirs)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}{errors}");
}

fn call(probe: Probe) -> (f64, [i64; 7]) {
    let mut out = [0; 7];
    let far = i64::MAX;
    // SAFETY: the array has room for what the function writes.
    let sum = unsafe {
        probe(
            out.as_mut_ptr(),
            far,
            -2,
            3,
            -4,
            5,
            1.0,
            2.0,
            3.0,
            4.0,
            5.0,
            6.0,
            7.0,
            8.0,
            6,
            9.0,
            7,
            0.5,
        )
    };
    (sum, out)
}

const ANSWER: (f64, [i64; 7]) = (1_234_567_890.5, [i64::MAX, -2, 3, -4, 5, 6, 7]);

#[test]
fn first_call_and_later_calls_keep_every_argument() {
    let dir = tempfile::tempdir().unwrap();
    for (library, name) in LIBRARIES {
        compile(dir.path(), library, &PROBE.replace("NAME", name));
    }
    alone("inside_with_libraries", dir.path());
    alone("inside_with_threads", dir.path());
}

#[test]
#[ignore = "run by first_call_and_later_calls_keep_every_argument"]
fn inside_with_libraries() {
    let open =
        |library: &str| std::fs::read_to_string("/proc/self/maps").unwrap().contains(library);
    for (probe, (library, _)) in probes().into_iter().zip(LIBRARIES) {
        // cuBLAS has opened what it needs.
        assert!(library.contains("cublasLt") || !open(library), "{library} before its first call");
        for round in 0..3 {
            assert_eq!(call(probe), ANSWER, "{library}, call {round}");
        }
        assert!(open(library), "{library} after its first call");
    }
    assert_eq!(cuda_lazy::missing(), []);
    // Libraries that are there and do not have the name.
    answers_of_absent_functions();
}

#[test]
#[ignore = "run by first_call_and_later_calls_keep_every_argument"]
fn inside_with_threads() {
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for probe in probes() {
                    assert_eq!(call(probe), ANSWER);
                }
            });
        }
    });
}

fn answers_of_absent_functions() {
    for round in 0..2 {
        // SAFETY: what stands in for an absent function looks at no argument.
        let (driver, blas, random) = unsafe { (cu_init(0), cublas_destroy(0), curand_destroy(0)) };
        assert_eq!(driver, 100, "CUDA_ERROR_NO_DEVICE, call {round}");
        assert_eq!(blas, 1, "CUBLAS_STATUS_NOT_INITIALIZED, call {round}");
        assert_eq!(random, 100, "a failure that cuRAND knows, call {round}");
        // SAFETY: a text that ends in nul and stays.
        let text = unsafe { CStr::from_ptr(cublas_text(1)) };
        assert_eq!(text, c"the library is not here");
    }
}

#[test]
fn absent_libraries_are_named_and_answer_with_a_failure() {
    let empty = tempfile::tempdir().unwrap();
    alone("inside_without_libraries", empty.path());
}

#[test]
#[ignore = "run by absent_libraries_are_named_and_answer_with_a_failure"]
fn inside_without_libraries() {
    let missing = cuda_lazy::missing();
    let names: Vec<&str> = missing.iter().map(|missing| missing.library).collect();
    let all = ["libcuda.so.1", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"];
    if names != all {
        // A machine with CUDA, or with a part of it: what is here must not be called like this.
        return;
    }
    let dirs = std::env::var("GRADUS_CUDA_DIRS").unwrap();
    assert!(missing.iter().all(|missing| missing.looked_in[0] == Path::new(&dirs)), "{missing:?}");
    assert_eq!(missing[0].to_string(), "libcuda.so.1 is not here");
    answers_of_absent_functions();
}
