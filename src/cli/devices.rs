//! `gradus devices`: what this machine can compute on, and why not on more.

use super::{ExitStatus, output};
use gradus::Error;
use gradus::lm::device::{DeviceChoice, DeviceKind, SelectedDevice, gpu_count, select};
use gradus::lm::error::LmError;
use serde::Serialize;

/// What computes, for verbs that open a model.
#[derive(clap::Args, Clone, Copy, Default)]
pub struct Wish {
    /// What computes, instead of what gradus.yaml says: auto, cpu, cuda or cuda:N.
    #[arg(long)]
    pub device: Option<DeviceChoice>,
}

/// Says which device it is and why, where there was a choice.
pub fn say(device: &SelectedDevice) {
    if let Some(notice) = device.notice() {
        eprintln!("device: {notice}");
    }
}

/// What this machine can compute on.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which to take: auto, cpu, cuda or cuda:N. One that cannot be had is an error.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct DevicesShown {
    devices: Vec<DeviceLine>,
    asked: String,
    picked: String,
    reason: String,
}

#[derive(Serialize)]
struct DeviceLine {
    device: String,
    /// What it is, or why it cannot be had.
    is: String,
    usable: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let choice: DeviceChoice = arguments.device.parse()?;
    let picked = select(choice)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut devices = vec![DeviceLine {
        device: "cpu".to_owned(),
        is: format!("{threads} threads"),
        usable: true,
    }];
    devices.extend((0..gpu_count()).map(gpu));
    let SelectedDevice { kind, reason, .. } = picked;
    if kind == DeviceKind::Emulated {
        devices.push(DeviceLine { device: kind.to_string(), is: reason.clone(), usable: true });
    }
    let shown =
        DevicesShown { devices, asked: choice.to_string(), picked: kind.to_string(), reason };
    if arguments.json {
        output::json(&shown)?
    } else {
        output::text(&render(&shown, kind))?
    }
    Ok(ExitStatus::Done)
}

fn gpu(index: usize) -> DeviceLine {
    let choice = DeviceChoice::Cuda(index);
    let (is, usable) = match select(choice) {
        Ok(picked) => (picked.reason, true),
        Err(LmError::Device { why, .. }) => (why, false),
        Err(error) => (error.to_string(), false),
    };
    DeviceLine { device: choice.to_string(), is, usable }
}

fn render(shown: &DevicesShown, kind: DeviceKind) -> String {
    let mut text = String::new();
    for line in &shown.devices {
        text.push_str(&format!("{:<8} {}\n", line.device, line.is));
    }
    // Of a GPU the reason is what it is, which is above.
    let why = match kind {
        DeviceKind::Cpu => format!(" ({})", shown.reason),
        _ => String::new(),
    };
    text.push_str(&format!("--device {}: {}{why}\n", shown.asked, shown.picked));
    text
}
