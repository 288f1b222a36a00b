//! WILL IT FIT? What a run needs against what there is, before hours are spent to find out.

use super::{Memory, Outline, Remedy, parameters, remedies};
use crate::error::{Code, Error};
use crate::lm::device::{SelectedDevice, free_memory};
use crate::space::available_memory_bytes;

/// Bytes as people read them.
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1u32 << 30))
}

/// Why a run cannot fit into `available` bytes of a memory, and what would.
pub fn refusal(
    outline: &Outline<'_>,
    memory: Memory,
    (stage, needed): (&str, u64),
    available: u64,
) -> String {
    let found = remedies(outline, memory, available);
    let one = |Remedy { change, bytes }: &Remedy| format!("{change} ({})", gib(*bytes));
    let mut advice = match found.as_slice() {
        [] => {
            "No setting makes it fit: take a much smaller model, or a machine with more".to_owned()
        }
        some => format!("What would fit: {}", some.iter().map(one).collect::<Vec<_>>().join("; ")),
    };
    let mut place = String::new();
    if memory == Memory::Device {
        place = format!(" on {}", outline.device);
        advice.push_str("; or the CPU, slower: --device cpu");
    }
    format!(
        "the run needs about {}{place} (the {stage}) and {} are free ({:.0} M \
         parameters). {advice}",
        gib(needed),
        gib(available),
        parameters(outline.model) as f64 / 1e6
    )
}

/// Refuses what cannot fit into a memory of which so much is available, if that is known.
///
/// # Errors
/// with both sizes and the settings that would fit.
pub fn check(outline: &Outline<'_>, memory: Memory, available: Option<u64>) -> Result<(), Error> {
    let Some(available) = available else { return Ok(()) };
    let peak = outline.needs(memory).peak();
    if peak.1 <= available {
        return Ok(());
    }
    Err(Error::refused(Code::NotEnoughMemory, refusal(outline, memory, peak, available)))
}

/// Refuses what cannot fit into what is free now: of the machine, and of the device.
///
/// # Errors
/// Those of [`check`].
pub fn check_now(outline: &Outline<'_>, device: &SelectedDevice) -> Result<(), Error> {
    check(outline, Memory::Machine, available_memory_bytes())?;
    check(outline, Memory::Device, free_memory(device))
}
