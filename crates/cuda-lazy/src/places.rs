//! Where a library may lie.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders to look in before all others, separated by `:`.
pub const DIRS_VARIABLE: &str = "GRADUS_CUDA_DIRS";

/// What is bound. The names carry the major version that cudarc's bindings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Driver,
    Cublas,
    CublasLt,
    Curand,
    Nvrtc,
}

impl Library {
    pub(crate) const COUNT: usize = 5;

    /// The name that the system's loader knows.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Library::Driver => "libcuda.so.1",
            Library::Cublas => "libcublas.so.13",
            Library::CublasLt => "libcublasLt.so.13",
            Library::Curand => "libcurand.so.10",
            Library::Nvrtc => "libnvrtc.so.13",
        }
    }
}

/// Answers with the value of a variable.
type Variables = Box<dyn Fn(&str) -> Option<OsString>>;

/// What of a process's surroundings says where Python and CUDA are.
pub(crate) struct Surroundings {
    /// Of the environment.
    pub variable: Variables,
    /// `/`, or a stand-in for it.
    pub root: PathBuf,
}

impl Surroundings {
    pub(crate) fn real() -> Self {
        Surroundings { variable: Box::new(|name| std::env::var_os(name)), root: PathBuf::from("/") }
    }

    fn folders_in(&self, variable: &str) -> Vec<PathBuf> {
        let list = (self.variable)(variable).unwrap_or_default();
        std::env::split_paths(&list).filter(|dir| !dir.as_os_str().is_empty()).collect()
    }

    /// Folders that the user named; the first to look in.
    pub(crate) fn named(&self) -> Vec<PathBuf> {
        self.folders_in(DIRS_VARIABLE)
    }

    /// Folders to look in when the system's loader has nothing, the likeliest first.
    pub(crate) fn usual(&self, library: Library) -> Vec<PathBuf> {
        let at = |path: &str| self.root.join(path);
        let driver = ["usr/local/nvidia/lib64", "usr/local/nvidia/lib", "usr/lib/wsl/lib"];
        if library == Library::Driver {
            return driver.map(at).to_vec();
        }
        let mut dirs: Vec<PathBuf> =
            self.folders_in("CUDA_HOME").iter().map(|home| home.join("lib64")).collect();
        dirs.extend(["usr/local/cuda/lib64", "usr/local/cuda/targets/x86_64-linux/lib"].map(at));
        dirs.extend(driver.map(at));
        dirs.extend(self.packages().iter().map(|packages| packages.join("nvidia/cu13/lib")));
        dirs
    }

    /// Where Python's packages lie: of the environment in use, of every `python3` in `PATH`, the
    /// user's own, the system's.
    fn packages(&self) -> Vec<PathBuf> {
        let mut prefixes = self.folders_in("VIRTUAL_ENV");
        prefixes.extend(self.folders_in("CONDA_PREFIX"));
        for bin in self.folders_in("PATH") {
            let python = bin.join("python3");
            if !python.is_file() {
                continue;
            }
            prefixes.extend(bin.parent().map(Path::to_path_buf));
            // A virtual environment's python3 is a link to the one it was made from.
            let real = python.canonicalize().ok();
            prefixes
                .extend(real.iter().filter_map(|p| p.parent()?.parent()).map(Path::to_path_buf));
        }
        prefixes.extend(self.folders_in("HOME").iter().map(|home| home.join(".local")));
        prefixes.extend(["usr/local", "usr"].map(|prefix| self.root.join(prefix)));
        let mut dirs = self.folders_in("PYTHONPATH");
        dirs.extend(prefixes.iter().flat_map(|prefix| packages_below(prefix)));
        let mut seen = BTreeSet::new();
        dirs.retain(|dir| seen.insert(dir.clone()));
        dirs
    }
}

/// `lib/python3.X/site-packages` and what Debian calls it, the newest Python first.
fn packages_below(prefix: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for lib in ["lib", "lib64"] {
        let entries = std::fs::read_dir(prefix.join(lib)).into_iter().flatten().flatten();
        let mut pythons: Vec<(u32, PathBuf)> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let version = name.to_str()?.strip_prefix("python3")?;
                Some((version.trim_start_matches('.').parse().unwrap_or(0), entry.path()))
            })
            .collect();
        pythons.sort_by(|a, b| b.cmp(a));
        for (_, python) in pythons {
            dirs.extend(["site-packages", "dist-packages"].map(|name| python.join(name)));
        }
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With no variable set but these.
    fn surroundings(root: &Path, variables: &[(&'static str, OsString)]) -> Surroundings {
        let variables = variables.to_vec();
        let find = move |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
        };
        Surroundings { variable: Box::new(find), root: root.to_path_buf() }
    }

    #[test]
    fn the_driver_is_never_looked_for_among_python_packages() {
        let plain = surroundings(Path::new("/"), &[]);
        let dirs = plain.usual(Library::Driver);
        assert!(dirs.contains(&PathBuf::from("/usr/local/nvidia/lib64")), "{dirs:?}");
        assert!(dirs.iter().all(|dir| !dir.ends_with("nvidia/cu13/lib")), "{dirs:?}");
        assert!(plain.named().is_empty());
    }

    #[test]
    fn named_folders_are_taken_apart_and_empty_ones_left_out() {
        let here = surroundings(Path::new("/"), &[(DIRS_VARIABLE, "/a::/b c".into())]);
        assert_eq!(here.named(), [PathBuf::from("/a"), PathBuf::from("/b c")]);
    }

    #[test]
    fn wheels_are_found_in_the_newest_python_first() {
        let root = tempfile::tempdir().unwrap();
        for python in ["python3.9", "python3.12", "python3", "perl5"] {
            std::fs::create_dir_all(root.path().join("usr/lib").join(python)).unwrap();
        }
        let dirs = surroundings(root.path(), &[]).usual(Library::Cublas);
        let below = |python: &str| {
            let packages = format!("usr/lib/{python}/site-packages/nvidia/cu13/lib");
            let wanted = root.path().join(packages);
            dirs.iter().position(|dir| *dir == wanted)
        };
        let (new, old, bare) = (below("python3.12"), below("python3.9"), below("python3"));
        assert!(new.is_some() && new < old && old < bare, "{dirs:?}");
        assert_eq!(below("perl5"), None);
        assert_eq!(dirs.first(), Some(&root.path().join("usr/local/cuda/lib64")));
    }

    #[test]
    fn an_environment_is_found_by_its_python_in_the_path_and_so_is_the_one_behind_it() {
        let root = tempfile::tempdir().unwrap();
        let (env, base) = (root.path().join("env"), root.path().join("base"));
        for prefix in [&env, &base] {
            std::fs::create_dir_all(prefix.join("bin")).unwrap();
            std::fs::create_dir_all(prefix.join("lib/python3.12")).unwrap();
        }
        std::fs::write(base.join("bin/python3.12"), "").unwrap();
        let link = env.join("bin/python3");
        std::os::unix::fs::symlink(base.join("bin/python3.12"), link).unwrap();
        let path = std::env::join_paths([root.path().join("empty"), env.join("bin")]).unwrap();
        let dirs = surroundings(root.path(), &[("PATH", path)]).usual(Library::Curand);
        let at = |prefix: &Path| {
            let wanted = prefix.join("lib/python3.12/site-packages/nvidia/cu13/lib");
            dirs.iter().position(|dir| *dir == wanted)
        };
        // The system may have given the folder another name (a link in /tmp).
        let base = base.canonicalize().unwrap();
        assert!(at(&env).is_some() && at(&env) < at(&base), "{dirs:?}");
        let once: BTreeSet<_> = dirs.iter().collect();
        assert_eq!(once.len(), dirs.len(), "{dirs:?}");
    }
}
