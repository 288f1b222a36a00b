//! wasmtime, narrowed to what rubrics need: Cranelift, components, fuel (deterministic, unlike
//! epochs, and no dearer), limits on memory and on what a call may hand over.

use super::RubricError;
use super::bindings::{v0_1, v0_2};
use super::cache::{self, Cache};
use std::path::Path;
use wasmtime::{Config, Engine, Store, StoreLimits, StoreLimitsBuilder};

/// Fuel of one call. The paper's rubric uses about 12,000 to render and 5,000 to parse.
pub(super) const FUEL_MAX: u64 = 50_000_000;
const MEMORY_BYTES_MAX: usize = 48 << 20;
const HOSTCALL_FUEL: usize = 8 << 20;
const STACK_BYTES_MAX: usize = 512 << 10;
const LOG_LINES_MAX: usize = 64;
const LOG_LINE_BYTES_MAX: usize = 1024;

/// Compiles and runs components.
#[derive(Clone)]
pub struct RubricEngine {
    pub(super) engine: Engine,
    pub(super) cache: Option<Cache>,
}

impl RubricEngine {
    /// An engine with the sandbox's limits, that keeps what it compiles for the next process:
    /// in `GRADUS_CACHE`, else in `gradus` below `XDG_CACHE_HOME` or `~/.cache`, which must be this
    /// user's alone; without one it compiles each time.
    ///
    /// # Errors
    /// [`RubricError::Engine`] when this machine is not one Cranelift knows.
    pub fn new() -> Result<RubricEngine, RubricError> {
        let mut engine = RubricEngine::without_cache()?;
        let dir = cache::of_this_person();
        engine.cache = dir.and_then(|dir| Cache::open(&dir, &engine.engine));
        Ok(engine)
    }

    /// The same with a cache in this folder, as far as it is this user's alone.
    ///
    /// # Errors
    /// Those of [`RubricEngine::new`].
    pub fn with_cache(dir: &Path) -> Result<RubricEngine, RubricError> {
        let mut engine = RubricEngine::without_cache()?;
        engine.cache = Cache::open(dir, &engine.engine);
        Ok(engine)
    }

    /// The same, compiling each time.
    ///
    /// # Errors
    /// [`RubricError::Engine`] when this machine is not one Cranelift knows.
    pub fn without_cache() -> Result<RubricEngine, RubricError> {
        let mut config = Config::new();
        config.wasm_component_model(true);
        config.consume_fuel(true);
        config.cranelift_nan_canonicalization(true);
        config.max_wasm_stack(STACK_BYTES_MAX);
        config.wasm_backtrace_max_frames(None);
        let engine = Engine::new(&config);
        let engine = engine.map_err(|error| RubricError::Engine(format!("{error:#}")))?;
        Ok(RubricEngine { engine, cache: None })
    }
}

/// One instance's host side.
pub(super) struct Host {
    limits: StoreLimits,
    /// What the rubric logged.
    pub(super) log: Vec<String>,
}

impl Host {
    fn line(&mut self, level: &dyn std::fmt::Debug, message: &str) -> wasmtime::Result<()> {
        if self.log.len() >= LOG_LINES_MAX {
            // Calls into the host are cheap in fuel, so this is what bounds them.
            return Err(wasmtime::Error::msg(format!("more than {LOG_LINES_MAX} log lines")));
        }
        let line: String = message.chars().take(LOG_LINE_BYTES_MAX).collect();
        self.log.push(format!("{level:?}: {line}"));
        Ok(())
    }
}

// The interfaces hold types alone.
impl v0_1::gradus::rubric::types::Host for Host {}
impl v0_2::gradus::rubric::types::Host for Host {}

impl v0_1::gradus::rubric::log::Host for Host {
    fn write(
        &mut self,
        level: v0_1::gradus::rubric::log::Level,
        message: String,
    ) -> wasmtime::Result<()> {
        self.line(&level, &message)
    }
}

impl v0_2::gradus::rubric::log::Host for Host {
    fn write(
        &mut self,
        level: v0_2::gradus::rubric::log::Level,
        message: String,
    ) -> wasmtime::Result<()> {
        self.line(&level, &message)
    }
}

/// A store for one call.
pub(super) fn store(engine: &Engine) -> Result<Store<Host>, String> {
    let limits = StoreLimitsBuilder::new()
        .memory_size(MEMORY_BYTES_MAX)
        .table_elements(20_000)
        .instances(64)
        .tables(64)
        .memories(4)
        .trap_on_grow_failure(true)
        .build();
    let mut store = Store::new(engine, Host { limits, log: Vec::new() });
    store.limiter(|host| &mut host.limits);
    store.set_fuel(FUEL_MAX).map_err(|error| format!("{error:#}"))?;
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    Ok(store)
}
