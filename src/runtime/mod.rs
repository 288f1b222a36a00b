//! FRONT DOOR: create a run, start it, hand out [`Handle`]s, wait for a goal, stop it. A process may
//! hold as many runtimes as it has folders: what a run knows and decides is its own. They share what
//! belongs to the process and says nothing about any run: rayon's pool of threads
//! ([`crate::lm::threads`]), an opened GPU with the weights that nobody moves, the user's folder of
//! compiled rubrics, and whatever subscriber of `tracing` the host has set. Signals are not touched
//! here; the command line does that.

mod admission;
mod alone;
mod background;
mod builder;
mod component_folder;
mod core;
mod create;
mod draft;
pub(crate) mod fold;
pub mod folder;
mod handle;
mod held_out;
pub mod identity;
mod memory;
pub(crate) mod models;
mod outcome;
mod panels;
mod policies;
mod present;
mod referees;
mod retention;
pub(crate) mod rubric_files;
pub mod rubrics;
mod served;
mod settings;
pub mod socket;
mod space;
mod spelling;
mod status;
mod status_file;
mod subscription;
mod surface;
mod wait;
mod watched;

pub use builder::Builder;
pub use create::NewRun;
pub use fold::fold;
pub use folder::Folder;
pub use handle::Handle;
pub use held_out::HeldOutChange;
pub use outcome::{FailedIteration, Goal, Outcome};
pub use policies::{PolicyRow, find as find_policy};
pub use retention::Freed;
pub use served::{AnswerSettings, PolicyAnswer, ServedPolicy, TextStream};
pub use settings::SettingsToCome;
pub use status::{Activity, Status};
pub use subscription::{Delivered, Subscription};
pub use surface::{Admission, Answer, Command, Component, PolicyChoice, Query, Reply};

use self::core::Core;
use crate::actor::{ActorSystem, StageStatus};
use crate::blob::BlobStore;
use crate::config::Config;
use crate::domain::Offset;
use crate::error::Error;
use crate::lm::device::SelectedDevice;
use crate::log::{Health, Log};
use crate::machine::Place;
use background::Background;
use socket::Listener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use watched::Watched;

/// How long a shutdown waits for computations that look at their flag too seldom, and for requests
/// that are being answered: they hold the log, and with it the folder.
const FREE_PATIENCE: Duration = Duration::from_secs(60);

/// What works as long as the run does; in the order in which it is ended.
struct Working {
    status_file: Background,
    watched: Vec<Watched>,
    listener: Option<Listener>,
    system: ActorSystem,
    tail: Background,
}

/// A running run. Dropping it stops it without loss.
pub struct Runtime {
    inner: Arc<Inner>,
}

/// What a runtime and whoever waits for it hold.
struct Inner {
    handle: Handle,
    core: Mutex<Option<Arc<Core>>>,
    working: Mutex<Option<Working>>,
    config: Arc<Config>,
    to_come: Option<SettingsToCome>,
    place: Place,
    device: SelectedDevice,
    held_out: Option<HeldOutChange>,
    blobs: Arc<BlobStore>,
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn core(&self) -> Result<Arc<Core>, Error> {
        lock(&self.core).clone().ok_or(Error::Closed)
    }
}

impl Runtime {
    /// A runtime over a folder that `init` or [`Folder::create`] laid out.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder {
        Builder::at(Folder::at(dir))
    }

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
        handle::on_a_thread(move || {
            inner.shut_down();
            Ok(())
        })
        .await
    }
}

impl Inner {
    /// Ends what works; what computes is given up.
    fn stop(&self) {
        let Some(working) = lock(&self.working).take() else { return };
        let Working { status_file, watched, listener, mut system, tail } = working;
        drop(status_file);
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

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
        // Whoever drops a runtime goes on at once: a process that ends, mostly.
        self.free(Duration::ZERO);
    }
}

/// Tells handles how far the log goes.
///
/// # Errors
/// When the system will not give a thread.
fn watch_tail(
    log: &Arc<crate::log::DurableLog>,
    tell: tokio::sync::watch::Sender<Offset>,
) -> std::io::Result<Background> {
    let (bell, log) = (log.subscribe(), Arc::downgrade(log));
    Background::start("tail", move |stopped| {
        loop {
            crossbeam_channel::select! {
                recv(stopped) -> _ => return,
                recv(bell) -> rung => if rung.is_err() { return },
            }
            let Some(tail) = log.upgrade().map(|log| log.tail()) else { return };
            tell.send_replace(tail);
        }
    })
}
