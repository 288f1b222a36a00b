//! RUNNING: a run that this process has open: what works in it, and how that ends.

use super::background::{Background, on_a_thread};
use super::core::Core;
use super::handle::Handle;
use super::held_out::HeldOutChange;
use super::retention::Freed;
use super::settings::SettingsToCome;
use super::socket::Listener;
use super::watched::WatchedFolder;
use crate::actor::{ActorSystem, StageStatus};
use crate::blob::BlobStore;
use crate::config::Config;
use crate::domain::Offset;
use crate::error::Error;
use crate::lm::device::SelectedDevice;
use crate::log::{Health, Log};
use crate::machine::Place;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a shutdown waits for computations that look at their flag too seldom, and for requests
/// that are being answered: they hold the log, and with it the folder.
const FREE_PATIENCE: Duration = Duration::from_secs(60);

/// What works as long as the run does; in the order in which it is ended.
pub(super) struct Working {
    pub status_file: Background,
    pub tensorboard: Background,
    pub watched: Vec<WatchedFolder>,
    pub listener: Option<Listener>,
    pub system: ActorSystem,
    pub tail: Background,
}

/// A running run. Dropping it stops it without loss.
pub struct Runtime {
    pub(super) inner: Arc<RuntimeState>,
}

/// What a runtime and whoever waits for it hold.
pub(super) struct RuntimeState {
    pub handle: Handle,
    pub core: Mutex<Option<Arc<Core>>>,
    pub working: Mutex<Option<Working>>,
    pub config: Arc<Config>,
    pub to_come: Option<SettingsToCome>,
    pub place: Place,
    pub device: SelectedDevice,
    pub held_out: Option<HeldOutChange>,
    pub blobs: Arc<BlobStore>,
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RuntimeState {
    pub fn core(&self) -> Result<Arc<Core>, Error> {
        lock(&self.core).clone().ok_or(Error::Closed)
    }
}

impl Runtime {
    /// A handle that may be cloned and sent anywhere.
    pub fn handle(&self) -> Handle {
        self.inner.handle.clone()
    }

    /// What computes, and why.
    pub fn device(&self) -> &SelectedDevice {
        &self.inner.device
    }

    /// What a change of `prompts.held_out` came to, where it was changed since the last start.
    pub fn held_out_change(&self) -> Option<&HeldOutChange> {
        self.inner.held_out.as_ref()
    }

    /// What of the settings counts from the next iteration on, where they were changed.
    pub fn settings_to_come(&self) -> Option<&SettingsToCome> {
        self.inner.to_come.as_ref()
    }

    /// What every stage is doing; nothing after a shutdown.
    pub fn stages(&self) -> Vec<StageStatus> {
        self.inner.core().map(|core| core.stages()).unwrap_or_default()
    }

    /// Whether the log takes events.
    pub fn log_health(&self) -> Health {
        let closed = |error: Error| Health::Lost { reason: error.to_string() };
        self.inner.core().map_or_else(closed, |core| core.log.health())
    }

    /// Drops what iterations older than the last `keep` finished ones left: completions, judgments,
    /// pairs, checkpoints on the way. What they came to stays.
    ///
    /// # Errors
    /// When there is no space, or the log is damaged; nothing that is needed is gone then.
    pub fn retain(&self, keep: u32) -> Result<Freed, Error> {
        self.inner.retain(keep)
    }

    /// Stops at the next safe point; what was recorded is durable when this returns, handles say
    /// [`Error::Closed`], and the folder is free for another process. Where a computation does not
    /// end within a minute its thread is left behind, with a warning, and holds the folder until then.
    pub fn shutdown_blocking(&self) {
        self.inner.shut_down();
    }

    /// As [`Runtime::shutdown_blocking`], for a host that awaits.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let inner = self.inner.clone();
        on_a_thread(move || {
            inner.shut_down();
            Ok(())
        })
        .await
    }
}

impl RuntimeState {
    /// Ends what works; what computes is given up.
    fn stop(&self) {
        let Some(working) = lock(&self.working).take() else { return };
        let Working { status_file, tensorboard, watched, listener, mut system, tail } = working;
        drop((status_file, tensorboard));
        drop(watched);
        drop(listener);
        system.stop();
        drop(system);
        drop(tail);
    }

    /// Ends what works, and says so where a computation does not end.
    fn shut_down(&self) {
        self.stop();
        if !self.free(FREE_PATIENCE) {
            let folder = self.place.path().display().to_string();
            tracing::warn!(folder, "a computation does not end; it holds the run's log until then");
        }
    }

    /// Lets go of the log, once nobody uses it any more; whether that was within `patience`.
    fn free(&self, patience: Duration) -> bool {
        let Some(core) = lock(&self.core).take() else { return true };
        let since = Instant::now();
        let log = core.log.clone();
        let mut core = Some(core);
        // Requests in hand hold the core, threads that compute the log.
        while Arc::strong_count(&log) > 1 && since.elapsed() < patience {
            if core.as_ref().is_some_and(|core| Arc::strong_count(core) == 1) {
                core = None;
                continue;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(core);
        Arc::strong_count(&log) == 1
    }
}

impl Drop for RuntimeState {
    fn drop(&mut self) {
        self.stop();
        // Whoever drops a runtime goes on at once: a process that ends, mostly.
        self.free(Duration::ZERO);
    }
}

/// Tells handles how far the log goes: whom they ask, and the thread that tells.
///
/// # Errors
/// When the system will not give a thread.
pub(super) fn watch_tail(
    log: &Arc<crate::log::DurableLog>,
) -> std::io::Result<(watch::Receiver<Offset>, Background)> {
    let (tell, tail) = watch::channel(log.tail());
    let (bell, log) = (log.subscribe(), Arc::downgrade(log));
    let told = Background::start("tail", move |stopped| {
        loop {
            crossbeam_channel::select! {
                recv(stopped) -> _ => return,
                recv(bell) -> rung => if rung.is_err() { return },
            }
            let Some(tail) = log.upgrade().map(|log| log.tail()) else { return };
            tell.send_replace(tail);
        }
    })?;
    Ok((tail, told))
}
