//! MEMORY: whether there is some now, before each heavy task.

use crate::config::Config;
use crate::space::available_memory_bytes;
use crate::stage::Headroom;
use std::sync::Arc;

/// Leaves some of the system's memory to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserve {
    /// How many MiB; 0 leaves nothing.
    pub mib: u32,
}

impl Reserve {
    /// As the settings say.
    pub fn of(config: &Config) -> Arc<dyn Headroom> {
        Arc::new(Reserve { mib: config.supervision.memory_reserve_mib })
    }
}

impl Headroom for Reserve {
    fn lacking(&self) -> Option<String> {
        let available =
            Some(self.mib).filter(|mib| *mib > 0).and_then(|_| available_memory_bytes())?;
        let mib = available / (1 << 20);
        (mib < u64::from(self.mib)).then(|| {
            format!(
                "{mib} MiB of memory are available; supervision.memory_reserve_mib leaves {} to \
                 others",
                self.mib
            )
        })
    }
}
