//! What a service manager is told (`sd_notify`): that the run is open, what it is at, and that it ends.
//! Without one nothing happens.

use sd_notify::NotifyState;
use std::sync::Mutex;

fn tell(states: &[NotifyState<'_>]) {
    // Whether a service manager listens is not the run's business.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// The run is open and works.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The run ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// What the run is at, in a line; said when it is another than before.
pub fn status(line: &str) {
    static SAID: Mutex<String> = Mutex::new(String::new());
    let Ok(mut said) = SAID.lock() else { return };
    if *said != line {
        line.clone_into(&mut said);
        tell(&[NotifyState::Status(line)]);
    }
}
