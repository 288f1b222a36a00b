//! ACTIX LIVES HERE AND NOWHERE ELSE. One generic [`shell`] around every stage, its compute on an
//! owned [`worker`] thread, the device [`lease`], the [`clock`].
//!
//! Messages are doorbells: `Wake`, `Inspect`, `Stop`. A lost or doubled `Wake` changes nothing,
//! because the view says what is to do. So nothing of actix's mailbox semantics is relied on:
//! not its capacity, not its supervisor, not delivery.

pub mod clock;
pub mod lease;
pub mod shell;
pub mod system;
pub mod worker;

#[cfg(test)]
mod tests;

pub use system::{ActorSystem, StageStates, StageStatus};
