//! What can be seen of the choice without a GPU. With the feature: tests/it/device.rs.

use super::*;

#[test]
fn choices_are_read_and_written() {
    let read = |text: &str| text.parse::<DeviceChoice>();
    assert_eq!(read("auto").unwrap(), DeviceChoice::Auto);
    assert_eq!(read("cpu").unwrap(), DeviceChoice::Cpu);
    assert_eq!(read("cuda").unwrap(), DeviceChoice::Cuda(0));
    assert_eq!(read("cuda:12").unwrap(), DeviceChoice::Cuda(12));
    assert_eq!(DeviceChoice::default(), DeviceChoice::Auto);
    for choice in
        [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(3), DeviceChoice::Emulated]
    {
        assert_eq!(read(&choice.to_string()).unwrap(), choice);
    }
}

#[test]
fn other_words_are_refused_with_those_there_are() {
    for text in ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:1 ", "cuda0"] {
        let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("Devices: auto, cpu, cuda, cuda:N"), "{text:?}: {error}");
    }
    let huge = format!("cuda:{}0", usize::MAX);
    assert!(huge.parse::<DeviceChoice>().is_err());
}

#[test]
fn the_emulator_is_only_had_by_name() {
    let selected = select(DeviceChoice::Emulated);
    assert_eq!(selected.is_ok(), can_be_emulated());
    if let Err(error) = selected {
        assert!(error.to_string().contains("take cpu"), "{error}");
    }
}

#[test]
fn the_cpu_can_always_be_had() {
    let selected = select(DeviceChoice::Cpu).unwrap();
    assert_eq!((selected.kind, selected.reason.as_str()), (DeviceKind::Cpu, "asked for"));
    assert!(selected.device.is_cpu());
}

#[test]
fn auto_says_why_it_is_the_cpu_and_cuda_by_name_is_an_error_then() {
    let selected = select(DeviceChoice::Auto).unwrap();
    assert!(!selected.reason.is_empty());
    let by_name = select(DeviceChoice::Cuda(0));
    match selected.kind {
        DeviceKind::Cuda(index) => assert_eq!((index, by_name.is_ok()), (0, true)),
        DeviceKind::Emulated => panic!("auto took what is for tests"),
        DeviceKind::Cpu => {
            assert!(selected.device.is_cpu());
            let error = by_name.unwrap_err().to_string();
            assert!(error.starts_with(&format!("device cuda:0: {}. ", selected.reason)), "{error}");
            assert!(error.contains("cpu or auto"), "what to do: {error}");
            assert_eq!(gpu_count(), 0);
        }
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn without_the_feature_that_is_the_reason() {
    assert_eq!(select(DeviceChoice::Auto).unwrap().reason, "built without the feature cuda");
    let error = select(DeviceChoice::Cuda(1)).unwrap_err().to_string();
    assert!(error.contains("scripts/build-cuda"), "{error}");
}

#[test]
fn every_reason_is_in_words() {
    let old = GpuUnavailable::OldDriver { found: 12040, needed: 13000 };
    assert_eq!(old.to_string(), "the driver is for CUDA 12.4, and this program for CUDA 13.0");
    assert!(old.advice().contains("580"));
    let none = GpuUnavailable::NoSuchGpu { index: 3, count: 1 };
    assert_eq!(none.to_string(), "there is no GPU 3; GPUs here: 1");
    let library =
        |is_driver| GpuUnavailable::Library { missing: "libX is not here".into(), is_driver };
    assert!(library(true).advice().contains("driver"));
    assert!(library(false).advice().contains("GRADUS_CUDA_DIRS"));
    let card =
        GpuUnavailable::OldGpu { name: "A100".into(), found: "8.0".into(), needed: "9.0".into() };
    assert_eq!(
        card.to_string(),
        "A100 has compute capability 8.0, and this program is for 9.0 and later"
    );
}
