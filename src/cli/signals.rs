//! SIGINT, SIGTERM and SIGHUP stop at a safe point; a second one stops at once (nothing recorded is lost
//! then either, only the task in hand).

use gradus::Error;
use gradus::lm::cancel::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A flag that the first signal sets.
pub fn stop_flag() -> Result<Cancel, Error> {
    let stop = Cancel::default();
    let flag = stop.clone();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Error::io("signals", e))?;
    let listen = move || {
        for signal in signals.forever() {
            if flag.is_cancelled() {
                std::process::exit(128 + signal);
            }
            eprintln!("stopping at the next safe point (again to stop at once)");
            flag.cancel();
        }
    };
    std::thread::Builder::new()
        .name("gradus-signals".into())
        .spawn(listen)
        .map_err(|e| Error::io("signals", e))?;
    Ok(stop)
}
