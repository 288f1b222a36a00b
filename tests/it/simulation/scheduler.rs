//! One thread, one seed: who wakes, how far it reads, whose task ends, when the power fails. The
//! stages, what a shell decides and what a worker does with an order are the real ones; only
//! actix, threads and clocks are left out.

use super::flaky::{Disk, FlakyLog, Power};
use super::role::{Role, Trouble, fold, roles};
use super::world::World;
use crate::dice::Dice;
use gradus::actor::worker::Done;
use gradus::domain::{Event, Iteration, Offset, Prompt, PromptOrigin, TaskKey, Trial, When};
use gradus::log::{Batch, Log};
use gradus::stage::conductor::{Conductor, PromptsAwaited};
use gradus::stage::{ATTEMPTS_MAX, Stage, StageContext};
use gradus::view::RunView;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A run that is not over by then hangs.
const TICKS_MAX: u32 = 200_000;

/// What lives until the power fails.
struct Process {
    log: Arc<FlakyLog>,
    context: StageContext,
    roles: Vec<Box<dyn Role>>,
    /// Wake-ups that wait in each mailbox.
    rings: Vec<u32>,
    /// The iteration whose settings it was started with.
    settings_of: u32,
}

impl Process {
    fn start(world: &World, disk: &Disk, settings_of: u32) -> Process {
        let log = Arc::new(FlakyLog::new(disk));
        let context = world.context(disk, log.clone());
        let roles = roles(&Arc::new(world.config_of(settings_of)));
        Process { log, context, rings: vec![1; roles.len()], roles, settings_of }
    }
}

/// How rough a schedule is, in percent (`stop`, `pause` and `submit` in a thousand).
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    /// Wake-ups that are lost.
    pub lost: u64,
    /// Wake-ups that come twice.
    pub doubled: u64,
    /// Wake-ups that see only a part of what is new, down to half of a batch.
    pub late: u64,
    /// Appends at which the power fails.
    pub cut: u64,
    /// Tasks that fail, never so often that they are given up.
    pub fail: u64,
    /// Tasks that the machine refuses something, for now or for as long as the process lives.
    pub refused: u64,
    /// Times a host stops the process, or the power fails while nothing is written.
    pub stop: u64,
    /// Times a host pauses the run.
    pub pause: u64,
    /// Times a host adds a prompt.
    pub submit: u64,
    /// Tasks that fail whenever they are tried.
    pub doomed: u64,
    /// Times somebody lets another rubric judge at once, or rolls one back.
    pub swap: u64,
}

impl Mood {
    /// Nothing goes wrong.
    pub const CALM: Mood = Mood {
        lost: 0,
        doubled: 0,
        late: 0,
        cut: 0,
        fail: 0,
        refused: 0,
        stop: 0,
        pause: 0,
        submit: 0,
        doomed: 0,
        swap: 0,
    };

    /// The mood of a seed; the host adds no prompts, nothing is doomed.
    pub fn of(dice: &mut Dice) -> Mood {
        Mood {
            lost: dice.pick(&[0, 20, 60]),
            doubled: dice.pick(&[0, 20]),
            late: dice.pick(&[0, 30, 70]),
            cut: dice.pick(&[0, 3, 10]),
            fail: dice.pick(&[0, 5, 20]),
            refused: dice.pick(&[0, 5, 30]),
            stop: dice.pick(&[0, 3, 10]),
            pause: dice.pick(&[0, 3]),
            ..Mood::CALM
        }
    }
}

/// How often each thing happened: a simulation in which nothing does proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

impl Tally {
    /// Counts something.
    pub fn count(&mut self, what: &'static str, n: u64) {
        *self.0.entry(what).or_default() += n;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, n)| self.count(what, *n));
    }
}

/// A run under way.
pub struct Sim<'a> {
    pub world: &'a World,
    /// What survives.
    pub disk: Disk,
    /// All that is recorded, acknowledged or not. The scheduler looks at it, no stage does.
    pub truth: RunView,
    /// What happened.
    pub tally: Tally,
    /// Tasks that always fail, with their iterations; `None` for those looked at and spared.
    pub doomed: BTreeMap<TaskKey, Option<Iteration>>,
    /// Whether tasks may fail by themselves.
    pub faulty: bool,
    process: Process,
}

impl Sim<'_> {
    /// The world's run, created and not begun.
    pub fn new(world: &World) -> Sim<'_> {
        let disk = world.create();
        let process = Process::start(world, &disk, 1);
        let (truth, tally, doomed) = Default::default();
        Sim { world, disk, truth, tally, doomed, faulty: false, process }
    }

    /// Every stage in turn until none has anything to do; nothing ever goes wrong.
    pub fn calm(&mut self) {
        let mut worked = true;
        while std::mem::take(&mut worked) {
            self.read_settings();
            for at in 0..self.process.roles.len() {
                let Process { context, roles, .. } = &mut self.process;
                let role = &mut roles[at];
                role.wake(context, context.log.tail());
                let done = role.finish(context, Trouble::None);
                assert!(matches!(done, None | Some(Done::Recorded)), "{}: {done:?}", role.name());
                worked |= done.is_some();
                if done.is_some() && role.name() == Conductor::NAME {
                    self.read_settings();
                }
            }
        }
        self.look();
    }

    /// An iteration is opened with the settings that the file has by then.
    fn read_settings(&mut self) {
        self.look();
        let next = self.truth.finished() + 1;
        if !self.world.later.is_empty()
            && self.truth.open().is_none()
            && self.process.settings_of != next
        {
            self.process = Process::start(self.world, &self.disk, next);
            self.tally.count("settings read", 1);
        }
    }

    /// A few rounds of the calm run, and then an order in every hand that takes one.
    pub fn begin(&mut self, rounds: u32) {
        let Process { context, roles, .. } = &mut self.process;
        for round in 0..=rounds {
            for role in roles.iter_mut() {
                role.wake(context, context.log.tail());
                if round < rounds {
                    role.finish(context, Trouble::None);
                }
            }
        }
        self.look();
    }

    /// Orders in hand.
    pub fn in_hand(&self) -> usize {
        self.process.roles.iter().filter(|role| role.order().is_some()).count()
    }

    /// One rough schedule, to the end of the last iteration, and calm after that.
    pub fn storm(&mut self, dice: &mut Dice, mood: Mood) {
        for _ in 0..TICKS_MAX {
            self.read_settings();
            if self.is_over() {
                if self.truth.paused {
                    self.say(Event::ResumeRequested);
                }
                self.drain(dice, mood);
                return;
            }
            match dice.below(1000) {
                n if n < mood.stop => self.stop(dice.chance(50)),
                n if n < mood.stop + mood.pause && !self.truth.paused => {
                    self.say(Event::PauseRequested);
                    self.tally.count("pause", 1);
                }
                n if (800..800 + mood.submit).contains(&n) => self.submit(),
                n if (600..600 + mood.swap).contains(&n) => self.swap(dice),
                n if n >= 900 && self.truth.paused => self.say(Event::ResumeRequested),
                n if n % 2 == 0 => self.wake_one(dice, mood),
                _ => self.finish_one(dice, mood),
            }
        }
        panic!("not over after {TICKS_MAX} ticks: {:#?}", self.truth.open());
    }

    /// Whether nothing more comes: the iterations are over, or no prompt is left to answer.
    pub fn is_over(&self) -> bool {
        let config = &self.world.config;
        let over = self.truth.finished() >= config.iterations;
        over || PromptsAwaited::of(config, &self.truth).is_some()
    }

    /// What was in hand at the end is finished; then every stage is idle and knows everything.
    fn drain(&mut self, dice: &mut Dice, mood: Mood) {
        let end = Mood { cut: 0, fail: 0, refused: 0, ..mood };
        while self.in_hand() > 0 {
            self.finish_one(dice, end);
        }
        self.calm();
        let mut truth = self.truth.clone();
        truth.forget_finished();
        for role in &self.process.roles {
            assert_eq!(role.view(), &truth, "the view of {}", role.name());
        }
    }

    /// Appends what a host says.
    pub fn say(&mut self, event: Event) {
        self.disk.log.append(Batch { key: None, events: vec![event], cursor: None }).unwrap();
    }

    fn submit(&mut self) {
        let text = format!("host {} .", self.truth.next);
        let prompt = Prompt::user(text, PromptOrigin::Given);
        self.say(Event::PromptAdmitted { prompt });
        self.tally.count("prompt submitted", 1);
    }

    /// Somebody lets another rubric judge at once, or puts back what judged before; what is said is
    /// what `Rubrics` says.
    fn swap(&mut self, dice: &mut Dice) {
        let Some(panel) = self.truth.panel.clone() else { return };
        let back_to = self.truth.rubrics.fallback(&panel).cloned();
        if let Some(back_to) = back_to.filter(|_| dice.chance(70)) {
            let mut gone = panel.leaving(&back_to);
            while let Some(rubric) = gone.first().cloned() {
                let (back_to, reason) = (back_to.clone(), "by hand".to_owned());
                self.say(Event::RubricRolledBack {
                    rubric,
                    back_to,
                    reason,
                    taken_back: gone.clone(),
                });
                gone.remove(0);
            }
            self.tally.count("rolled back by hand", 1);
            return;
        }
        let trial = Trial { prompts: dice.from(0, 4), watch: 3, ..Trial::default() };
        let panel = dice.pick(&[0, 1, 2]);
        let panel = super::world::others()[panel].clone();
        let (when, trial) = (When::Immediately, Some(trial).filter(|_| dice.chance(60)));
        self.say(Event::RubricActivated { panel, when, trial });
        self.tally.count("swapped", 1);
    }

    fn look(&mut self) {
        fold(&mut self.truth, self.disk.log.as_ref(), self.disk.log.tail());
    }

    /// A stop by the host cancels the tasks in hand, a power cut does not ask; either way nothing
    /// of them is recorded and everything in memory is gone.
    fn stop(&mut self, gently: bool) {
        let tail = self.disk.log.tail();
        if gently {
            let Process { context, roles, .. } = &mut self.process;
            context.cancel.cancel();
            for role in roles.iter_mut() {
                let done = role.finish(context, Trouble::None);
                assert!(matches!(done, None | Some(Done::Cancelled)), "{done:?}");
            }
            assert_eq!(self.disk.log.tail(), tail, "a cancelled task records nothing");
        }
        self.tally.count(if gently { "stop" } else { "cut while idle" }, 1);
        self.restart();
    }

    /// A new process over the same disk; of the old one nothing is left.
    pub fn restart(&mut self) {
        // While an iteration is open, whatever the file says is nothing to it.
        let settings_of = match self.truth.open() {
            Some(_) => 1 + self.truth.next.0 as u32 % self.world.config.iterations,
            None => self.truth.finished() + 1,
        };
        self.process = Process::start(self.world, &self.disk, settings_of);
    }

    fn ring(&mut self, dice: &mut Dice, mood: Mood) {
        for waiting in &mut self.process.rings {
            if dice.chance(mood.lost) {
                self.tally.count("wake lost", 1);
            } else if dice.chance(mood.doubled) {
                self.tally.count("wake doubled", 1);
                *waiting += 2;
            } else {
                *waiting += 1;
            }
        }
    }

    /// Someone with a ring in the mailbox wakes; when there is none, the clock rings for all.
    fn wake_one(&mut self, dice: &mut Dice, mood: Mood) {
        let Process { context, roles, rings, .. } = &mut self.process;
        let waiting: Vec<usize> = (0..roles.len()).filter(|at| rings[*at] > 0).collect();
        if waiting.is_empty() {
            rings.fill(1);
            return;
        }
        let at = dice.pick(&waiting);
        rings[at] -= 1;
        let role = &mut roles[at];
        let (next, tail) = (role.view().next.0, context.log.tail().0);
        let mut until = tail;
        if tail > next && dice.chance(mood.late) {
            until = next + dice.below(tail - next);
            self.tally.count("wake late", 1);
        }
        let idle = role.order().is_none();
        role.wake(context, Offset(until));
        if let (true, true, Some((key, iteration))) = (mood.doomed > 0, idle, role.order()) {
            let fresh = context.log.find(key).unwrap().is_none() && role.name() != Conductor::NAME;
            let fate = if fresh && dice.chance(mood.doomed) { iteration } else { None };
            self.doomed.entry(key.clone()).or_insert(fate);
        }
    }

    /// Someone's task meets a machine that does not give what it needs: nothing of it is recorded,
    /// not even that, and the stage is ready to try again. What is lost for good ends the process.
    fn refuse(&mut self, at: usize, trouble: Trouble) {
        let tail = self.disk.log.tail();
        let Process { context, roles, .. } = &mut self.process;
        let done = roles[at].finish(context, trouble);
        assert_eq!(self.disk.log.tail(), tail, "{trouble:?} records nothing");
        match (trouble, done) {
            (Trouble::Shortage(_), Some(Done::Waits(_))) => self.tally.count("refused", 1),
            (Trouble::Loss, Some(Done::Lost(_))) => {
                self.tally.count("machine lost", 1);
                self.restart();
            }
            (trouble, done) => panic!("{trouble:?}: {done:?}"),
        }
    }

    fn finish_one(&mut self, dice: &mut Dice, mood: Mood) {
        let Process { log, context, roles, .. } = &mut self.process;
        let busy: Vec<usize> = (0..roles.len()).filter(|at| roles[*at].order().is_some()).collect();
        if busy.is_empty() {
            return;
        }
        let at = dice.pick(&busy);
        // Decided by a view that was behind: its worker finds it done.
        let stale =
            roles[at].order().is_some_and(|(key, _)| context.log.find(key).unwrap().is_some());
        self.tally.count("done already", u64::from(stale));
        if !stale && dice.chance(mood.refused) {
            let trouble = match dice.chance(10) {
                true => Trouble::Loss,
                false => Trouble::Shortage(dice.below(Trouble::SHORTAGES)),
            };
            return self.refuse(at, trouble);
        }
        let role = &mut roles[at];
        let Some((key, _)) = role.order() else { return };
        // Counted in the truth, not in a view that may be behind: a fault must stay a fault that
        // the run gets over.
        let failed = self.truth.failures.get(key).copied().unwrap_or_default();
        let spared = failed + 1 >= ATTEMPTS_MAX || role.name() == Conductor::NAME;
        let doomed = self.doomed.get(key).is_some_and(Option::is_some);
        let fails = doomed || (!spared && dice.chance(mood.fail));
        let power = match dice.chance(mood.cut) {
            true => dice.pick(&[Power::FailsBefore, Power::FailsAfter]),
            false => Power::Holds,
        };
        let (power, fails) = if stale { (Power::Holds, false) } else { (power, fails) };
        log.set(power);
        let done = role.finish(context, if fails { Trouble::Task } else { Trouble::None });
        match (power, done) {
            (Power::Holds, Some(Done::Recorded)) if !fails => {}
            (Power::Holds, Some(Done::Failed { .. })) if fails || self.faulty => {
                self.tally.count("task failed", 1)
            }
            (Power::FailsBefore, Some(Done::Lost(_))) => self.tally.count("cut before", 1),
            (Power::FailsAfter, Some(Done::Lost(_))) => self.tally.count("cut after", 1),
            (_, done) => panic!("{power:?}, fails: {fails}: {done:?}"),
        }
        self.look();
        if power == Power::Holds {
            self.ring(dice, mood);
        } else {
            self.restart();
        }
    }
}
