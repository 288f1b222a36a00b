//! Which device is picked, and what is said when it is not a GPU. With the feature `cuda` against
//! drivers of the test's own making, so that none is needed: see `.ci/cuda`.

use crate::runs::{alone, copied, digest, five, on, whole};
use std::path::Path;
use std::process::{Command, Output};

fn devices(arguments: &[&str], libraries: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus"))
        .arg("devices")
        .args(arguments)
        .env("GRADUS_CUDA_DIRS", libraries)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_cpu_is_there_and_other_words_are_wrong_input() {
    let nowhere = tempfile::tempdir().unwrap();
    let shown = json(&devices(&["--device", "cpu", "--json"], nowhere.path()));
    assert_eq!((&shown["picked"], &shown["reason"]), (&"cpu".into(), &"asked for".into()));
    assert_eq!(shown["devices"][0]["device"], "cpu");
    let out = devices(&["--device", "tpu"], nowhere.path());
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("Devices: auto, cpu, cuda, cuda:N"), "{}", stderr(&out));
}

#[cfg(not(feature = "cuda"))]
#[test]
fn without_the_feature_auto_is_the_cpu_and_cuda_is_wrong_input() {
    let nowhere = tempfile::tempdir().unwrap();
    let out = devices(&[], nowhere.path());
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.ends_with("--device auto: cpu (built without the feature cuda)\n"), "{text}");
    let out = devices(&["--device", "cuda"], nowhere.path());
    assert_eq!(out.status.code(), Some(2));
    let said = stderr(&out);
    assert!(said.contains("device cuda:0: built without") && said.contains("scripts/build-cuda"));
}

/// No machine has so many.
const NOT_THERE: [&str; 2] = ["--device", "cuda:99"];

#[test]
fn what_opens_a_model_wants_its_device_first() {
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let path = dir.to_str().unwrap();
    let gradus = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_gradus")).args(arguments).output().unwrap()
    };
    for arguments in [
        vec!["run", path, "--iterations", "9"],
        vec!["generate", path, "--prompt", "add 1 and 2 ."],
        vec!["rejudge", path, "--rubric", "demo-compact"],
        vec!["doctor", path],
        vec!["demo", "--reduced", "--no-arms", "--dir", path],
    ] {
        let out = gradus(&[arguments.as_slice(), &NOT_THERE].concat());
        let said = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("error: GRADUS0114 device cuda:99: "), "{arguments:?}: {said}");
    }
    assert_eq!(digest(&dir), whole().digest, "nothing was begun");
    // Where no model is asked, none is opened.
    let recorded = ["rejudge", path, "--rubric", "demo-compact", "--recorded"];
    let out = gradus(&[recorded.as_slice(), &NOT_THERE].concat());
    assert!(out.status.success(), "{}", stderr(&out));

    let settings = dir.join("gradus.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let line = text.lines().position(|line| line == "device: \"auto\"").unwrap() + 1;
    std::fs::write(&settings, text.replace("device: \"auto\"", "device: gpu")).unwrap();
    let out = gradus(&["run", path]);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{said}");
    let place = format!("gradus.yaml:{line}:9 device: ");
    assert!(said.contains(&place) && said.contains("Devices: auto, cpu"), "{said}");
}

/// A run that goes on somewhere else is the same run.
#[test]
fn the_device_is_not_what_a_run_is() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let settings = dir.join("gradus.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    assert!(text.contains("\ndtype: \"bf16\"\n"), "{text}");
    let text = text.replace("\ndevice: \"auto\"\n", "\ndevice: cuda:99\n");
    std::fs::write(&settings, text.replace("\ndtype: \"bf16\"\n", "\ndtype: f32\n")).unwrap();
    // `on` takes the CPU by a flag.
    assert!(on(&dir).status().unwrap().success(), "the flag counts");
    assert_eq!(digest(&dir), five().digest);
}

#[cfg(feature = "cuda")]
mod with_the_feature {
    use super::*;

    /// Libraries of the right names: empty ones, and a driver of this source.
    fn libraries(driver: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source.c");
        let others = ["libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"];
        for (name, text) in
            others.map(|name| (name, "")).into_iter().chain([("libcuda.so.1", driver)])
        {
            std::fs::write(&source, text).unwrap();
            let to = dir.path().join(name);
            let flags = ["-shared", "-fPIC", "-o"];
            assert!(
                Command::new("cc").args(flags).arg(to).arg(&source).status().unwrap().success()
            );
        }
        dir
    }

    fn driver(version: u32, init: u32, gpus: u32) -> String {
        format!(
            "int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}
             int cuInit(unsigned f) {{ return {init}; }}
             int cuDeviceGetCount(int *n) {{ *n = {gpus}; return 0; }}
             int cuGetErrorString(int e, const char **t) {{ *t = \"words of the driver\"; return 0; }}"
        )
    }

    fn reason(libraries: &Path) -> String {
        let shown = json(&devices(&["--json"], libraries));
        assert_eq!(shown["picked"], "cpu");
        shown["reason"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_the_driver_says_is_the_reason_for_the_cpu() {
        let old = libraries(&driver(12040, 0, 1));
        assert_eq!(
            reason(old.path()),
            "the driver is for CUDA 12.4, and this program for CUDA 13.0"
        );
        let none = libraries(&driver(13000, 0, 0));
        assert_eq!(reason(none.path()), "CUDA_ERROR_NO_DEVICE: words of the driver");
        let mismatch = libraries(&driver(13000, 803, 1));
        assert_eq!(
            reason(mismatch.path()),
            "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: words of the driver"
        );
        // It is there and can do nothing: what it lacks answers CUDA_ERROR_NO_DEVICE.
        let hollow = libraries("");
        assert_eq!(reason(hollow.path()), "CUDA_ERROR_NO_DEVICE");
    }

    #[test]
    fn a_gpu_by_name_that_cannot_be_had_is_wrong_input() {
        let two = libraries(&driver(13000, 0, 2));
        let out = devices(&["--device", "cuda:5"], two.path());
        assert_eq!(out.status.code(), Some(2));
        let said = stderr(&out);
        assert!(said.contains("device cuda:5: there is no GPU 5; GPUs here: 2"), "{said}");
        // The driver counts two and cannot open one.
        let out = devices(&["--device", "cuda:1"], two.path());
        assert_eq!(out.status.code(), Some(2));
        assert!(stderr(&out).contains("nvidia-smi"), "{}", stderr(&out));
        let shown = json(&devices(&["--json"], two.path()));
        assert_eq!(shown["devices"].as_array().unwrap().len(), 3, "{shown}");
        assert_eq!(shown["devices"][2]["usable"], false, "{shown}");
    }

    #[test]
    fn a_library_that_does_not_load_is_named() {
        let broken = libraries(&driver(13000, 0, 1));
        std::fs::write(broken.path().join("libcurand.so.10"), "no library").unwrap();
        let said = reason(broken.path());
        // A machine with a cuRAND of its own takes that one.
        let own = said.starts_with("CUDA_ERROR");
        assert!(own || said.starts_with("libcurand.so.10 does not load: "), "{said}");
    }

    #[test]
    fn nothing_there_is_said_so() {
        let nowhere = tempfile::tempdir().unwrap();
        let shown = json(&devices(&["--json"], nowhere.path()));
        // A machine with a driver of its own is asked for another reason, or has none.
        if shown["reason"] == "libcuda.so.1 is not here" {
            let out = devices(&["--device", "cuda"], nowhere.path());
            let said = stderr(&out);
            assert!(said.contains("driver, 580 or later"), "what to do: {said}");
        }
    }
}
