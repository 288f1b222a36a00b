//! The topology, in one place: six shells on one arbiter thread of our own, one bell ringer.
//! A host's own tokio or actix is never touched.

use super::lease::Lease;
use super::shell::{SharedState, Shell, ShellState, Stop, Wake};
use crate::config::Config;
use crate::stage::conductor::Conductor;
use crate::stage::evaluator::Evaluator;
use crate::stage::judge::Judge;
use crate::stage::pair_store::PairStore;
use crate::stage::sampler::Sampler;
use crate::stage::trainer::Trainer;
use crate::stage::{Stage, StageContext};
use crate::view::LiveView;
use actix::prelude::*;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a stop waits for computations that look at the cancel flag too seldom.
const STOP_PATIENCE: Duration = Duration::from_millis(1000);

/// What a stage is doing.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StageStatus {
    /// Its name.
    pub stage: &'static str,
    /// Its shell's state.
    #[serde(flatten)]
    pub state: ShellState,
}

/// What every stage is doing, for whoever asks; it outlives the actors.
#[derive(Clone)]
pub struct StageStates(Arc<[(&'static str, SharedState)]>);

impl StageStates {
    /// What they are doing now.
    pub fn read(&self) -> Vec<StageStatus> {
        let read =
            |state: &SharedState| state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.0.iter().map(|(stage, state)| StageStatus { stage, state: read(state) }).collect()
    }
}

struct Member {
    stage: &'static str,
    state: SharedState,
    wake: Recipient<Wake>,
    stop: Recipient<Stop>,
}

/// The running actors.
pub struct ActorSystem {
    context: StageContext,
    states: StageStates,
    members: crossbeam_channel::Receiver<Vec<Member>>,
    stop_bell: crossbeam_channel::Sender<()>,
    bell: Option<JoinHandle<()>>,
    system: Option<(System, JoinHandle<()>)>,
}

fn member<S: Stage + Unpin>(
    make: impl Fn() -> S + Send + Sync + 'static,
    context: &(StageContext, Arc<LiveView>),
    lease: &Lease,
    patience: u32,
) -> Member {
    let shell = Shell::new(make, context.clone(), lease.clone(), patience);
    let state = shell.state();
    let address = shell.start();
    Member { stage: S::NAME, state, wake: address.clone().recipient(), stop: address.recipient() }
}

fn members(context: &(StageContext, Arc<LiveView>), config: &Arc<Config>) -> Vec<Member> {
    let lease = Lease::default();
    let patience = config.supervision.frozen_after_seconds;
    let ours = config.clone();
    vec![
        member(move || Conductor::new(ours.clone()), context, &lease, patience),
        member(|| Sampler, context, &lease, patience),
        member(|| Judge, context, &lease, patience),
        member(|| PairStore, context, &lease, patience),
        member(Trainer::default, context, &lease, patience),
        member(|| Evaluator, context, &lease, patience),
    ]
}

impl ActorSystem {
    /// Starts the actors on a thread of their own; what is known of the run is `live`.
    ///
    /// # Errors
    /// When the system will not give threads.
    pub fn start(
        context: StageContext,
        config: Arc<Config>,
        live: Arc<LiveView>,
    ) -> std::io::Result<ActorSystem> {
        let (ready, started) = crossbeam_channel::bounded(1);
        let inner = (context.clone(), live);
        let thread = std::thread::Builder::new().name("gradus-actors".into()).spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let _ = ready.send((System::current(), members(&inner, &config)));
            });
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actor system ended with an error");
            }
        })?;
        let (system, members) =
            started.recv().map_err(|_| std::io::Error::other("the actor thread did not start"))?;
        let states = StageStates(members.iter().map(|m| (m.stage, m.state.clone())).collect());
        let wakes: Vec<Recipient<Wake>> = members.iter().map(|m| m.wake.clone()).collect();
        let (stop_bell, bell_stopped) = crossbeam_channel::bounded(1);
        let bell = ring(context.log.subscribe(), bell_stopped, wakes)?;
        let (keep, kept) = crossbeam_channel::bounded(1);
        let _ = keep.send(members);
        Ok(ActorSystem {
            context,
            states,
            members: kept,
            stop_bell,
            bell: Some(bell),
            system: Some((system, thread)),
        })
    }

    /// What every stage is doing.
    pub fn states(&self) -> &StageStates {
        &self.states
    }

    /// Stops at the next safe point: cancels the tasks in hand (nothing of them is recorded) and
    /// waits until their threads are gone. A thread inside one long computation (a micro-batch of
    /// a large model) is left to find the flag by itself; whatever was appended is durable anyway.
    pub fn stop(&mut self) {
        self.context.cancel.cancel();
        let _ = self.stop_bell.try_send(());
        if let Some(bell) = self.bell.take() {
            let _ = bell.join();
        }
        let Some((system, thread)) = self.system.take() else { return };
        let members = self.members.try_recv().unwrap_or_default();
        let (send, threads) = crossbeam_channel::unbounded();
        system.arbiter().spawn(async move {
            for member in members {
                if let Ok(Some(thread)) = member.stop.send(Stop).await {
                    let _ = send.send(thread);
                }
            }
        });
        let until = std::time::Instant::now() + STOP_PATIENCE;
        for thread in threads {
            while !thread.is_finished() && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
        system.stop();
        let _ = thread.join();
    }
}

impl Drop for ActorSystem {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Wakes every actor when the log grew, and once in a while anyway: a bell can be lost.
fn ring(
    bell: crossbeam_channel::Receiver<()>,
    stopped: crossbeam_channel::Receiver<()>,
    wakes: Vec<Recipient<Wake>>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("gradus-bell".into()).spawn(move || {
        loop {
            crossbeam_channel::select! {
                recv(stopped) -> _ => return,
                recv(bell) -> _ => {}
                default(Duration::from_millis(500)) => {}
            }
            for wake in &wakes {
                // A full mailbox holds a Wake already; a closed one belongs to a stopped actor.
                let _ = wake.try_send(Wake);
            }
        }
    })
}
