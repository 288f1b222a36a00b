//! The slots behind the entry points, and how they are filled.

use crate::places::{Library, Surroundings};
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

// static NAMES: [(&CStr, Library); N]
include!(concat!(env!("OUT_DIR"), "/names.rs"));

/// Where each entry point jumps to; null until its first call.
static SLOTS: [AtomicPtr<c_void>; NAMES.len()] =
    [const { AtomicPtr::new(ptr::null_mut()) }; NAMES.len()];

/// The entry points themselves: see `build.rs`.
#[expect(unsafe_code, reason = "no other way to pass on arguments that nothing is known of")]
mod trampolines {
    // SAFETY: each function is entered by a call of the C convention, keeps every register that
    // carries arguments, and leaves by a jump to a function that was called the same way.
    std::arch::global_asm!(
        include_str!(concat!(env!("OUT_DIR"), "/trampolines.s")),
        slots = sym super::SLOTS,
        resolve = sym super::resolve,
        options(att_syntax)
    );
}

#[expect(unsafe_code, reason = "the loader is a C library's")]
// SAFETY: signatures of <dlfcn.h>.
unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

/// `RTLD_NOW | RTLD_GLOBAL`: a library that lacks something says so at once, and cuBLAS finds what
/// it needs among those that are open.
const FLAGS: c_int = 0x102;

/// An open library. It is never closed.
struct LibraryHandle(*mut c_void);

#[expect(unsafe_code, reason = "a pointer is not Send by itself")]
// SAFETY: the loader's handles may be used from any thread, and are only handed back to it.
unsafe impl Send for LibraryHandle {}
#[expect(unsafe_code, reason = "a pointer is not Sync by itself")]
// SAFETY: as above.
unsafe impl Sync for LibraryHandle {}

static OPEN: [OnceLock<Result<LibraryHandle, Missing>>; Library::COUNT] =
    [const { OnceLock::new() }; Library::COUNT];

/// A library that a program on the GPU needs and cannot have here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Its file's name.
    pub library: &'static str,
    /// Folders in which it was looked for, beside the loader's own.
    pub looked_in: Vec<PathBuf>,
    /// What the loader said of a file that is there and does not load.
    pub refused: Option<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            None => write!(f, "{} is not here", self.library),
            Some(said) => write!(f, "{} does not load: {said}", self.library),
        }
    }
}

/// What cannot be loaded of what a program on the GPU needs; nothing when it has all. Loads what
/// can be loaded.
///
/// NVRTC is not asked for: it compiles programs at run time, which candle never does.
pub fn missing() -> Vec<Missing> {
    // The driver first: without it the others are of no use.
    [Library::Driver, Library::CublasLt, Library::Cublas, Library::Curand]
        .into_iter()
        .filter_map(|library| opened(library).as_ref().err().cloned())
        .collect()
}

fn opened(library: Library) -> &'static Result<LibraryHandle, Missing> {
    OPEN[library as usize].get_or_init(|| {
        if library == Library::Cublas {
            // It names cuBLASLt, which lies where the loader may not look.
            let _ = opened(Library::CublasLt);
        }
        open(library, &Surroundings::real())
    })
}

fn open(library: Library, surroundings: &Surroundings) -> Result<LibraryHandle, Missing> {
    let file = library.file();
    let (named, usual) = (surroundings.named(), surroundings.usual(library));
    let there = |dirs: &[PathBuf]| {
        let paths = dirs.iter().map(|dir| dir.join(file));
        paths.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    // A bare name is for the system's loader to find.
    let places = [there(&named), vec![PathBuf::from(file)], there(&usual)].concat();
    let mut refused = None;
    for place in places {
        match load(place.as_os_str()) {
            Ok(handle) => return Ok(handle),
            // Of a bare name this says that the loader knows no such file.
            Err(said) if said.starts_with(&format!("{file}: cannot open shared object file")) => {}
            Err(said) => drop(refused.get_or_insert(said)),
        }
    }
    Err(Missing { library: file, looked_in: [named, usual].concat(), refused })
}

#[expect(unsafe_code, reason = "the loader is a C library's")]
fn load(path: &OsStr) -> Result<LibraryHandle, String> {
    let path = CString::new(path.as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: a string that ends in nul. Loading runs the library's own initialisers, which is
    // what it means to use it.
    let handle = unsafe { dlopen(path.as_ptr(), FLAGS) };
    if !handle.is_null() {
        return Ok(LibraryHandle(handle));
    }
    // SAFETY: null, or a string that stays until this thread's next call of the loader.
    let said = unsafe { dlerror().as_ref().map(|said| CStr::from_ptr(said)) };
    Err(said.map_or_else(|| "no reason given".to_owned(), |said| said.to_string_lossy().into()))
}

/// What the entry point with this number jumps to from now on. Called by the trampolines alone.
extern "C" fn resolve(number: u32) -> *const c_void {
    let at = number as usize;
    let (name, library) = NAMES[at];
    let found = opened(library).as_ref().ok().and_then(|handle| symbol(handle, name));
    let target = found.unwrap_or_else(|| stand_in(name, library));
    // Two threads may come here with one number; they store the same.
    SLOTS[at].store(target, Ordering::Release);
    target
}

#[expect(unsafe_code, reason = "the loader is a C library's")]
fn symbol(handle: &LibraryHandle, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: an open library that is never closed, and a string that ends in nul.
    let found = unsafe { dlsym(handle.0, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// `CUDA_ERROR_NO_DEVICE`, which also is a failure of cuRAND's (`CURAND_STATUS_VERSION_MISMATCH`).
extern "C" fn no_device() -> c_int {
    100
}

/// `CUBLAS_STATUS_NOT_INITIALIZED`. cudarc makes a Rust enum of the answer, so it must be one that
/// the library knows.
extern "C" fn not_initialised() -> c_int {
    1
}

/// `NVRTC_ERROR_INTERNAL_ERROR`.
extern "C" fn internal_error() -> c_int {
    11
}

/// For the few names that answer with a text.
extern "C" fn no_text() -> *const c_char {
    c"the library is not here".as_ptr()
}

/// What answers in the place of a function that is not there.
fn stand_in(name: &CStr, library: Library) -> *mut c_void {
    const TEXTS: [&CStr; 5] = [
        c"cublasGetStatusName",
        c"cublasGetStatusString",
        c"cublasLtGetStatusName",
        c"cublasLtGetStatusString",
        c"nvrtcGetErrorString",
    ];
    if TEXTS.contains(&name) {
        return no_text as *mut c_void;
    }
    let failure = match library {
        Library::Driver | Library::Curand => no_device,
        Library::Cublas | Library::CublasLt => not_initialised,
        Library::Nvrtc => internal_error,
    };
    failure as *mut c_void
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_each_there_once() {
        assert!(NAMES.windows(2).all(|two| two[0].0 < two[1].0));
        assert!(NAMES.len() > 1000, "{}", NAMES.len());
        let of = |library| NAMES.iter().filter(|(_, l)| *l == library).count();
        for library in [Library::Driver, Library::Cublas, Library::CublasLt, Library::Curand] {
            assert!(of(library) > 10, "{library:?}: {}", of(library));
        }
    }

    #[test]
    fn a_file_that_does_not_load_is_told_from_one_that_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let unset = Box::new(|_: &str| None);
        let nowhere = Surroundings { variable: unset, root: root.path().to_path_buf() };
        let absent = open(Library::Curand, &nowhere).err();
        // Where the system's loader knows the library there is nothing to see here.
        let Some(absent) = absent else { return };
        assert_eq!(absent.to_string(), "libcurand.so.10 is not here");
        let dir = root.path().join("usr/local/cuda/lib64");
        assert!(absent.looked_in.contains(&dir), "{absent:?}");

        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("libcurand.so.10"), "no library").unwrap();
        let broken = open(Library::Curand, &nowhere).err().unwrap();
        let text = broken.to_string();
        assert!(text.starts_with("libcurand.so.10 does not load: ") && text.contains("lib64"));
    }
}
