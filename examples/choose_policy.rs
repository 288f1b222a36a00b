//! Which policy acts: the list, one from before, back, and one that stays. What cannot be done is an
//! error to match on, with a code that stays the same.
//!
//! ```text
//! cargo run --release --example choose_policy -- DIR
//! ```

use gradus::prelude::*;

/// Rolls the run back to the policy before, pins M1 and lets the gate decide again; tells what acted
/// after each.
pub async fn choose(run: &Handle) -> Result<Vec<String>, Error> {
    let mut acted = vec![run.status().await?.policy];
    acted.push(run.roll_back_policy("it answers worse by hand").await?.name);
    let (policy, reason) = ("M1".to_owned(), "the one that was audited".to_owned());
    run.command(Command::ChoosePolicy { policy, pin: true, reason }).await?;
    acted.push(run.status().await?.policy);
    run.command(Command::UnpinPolicy { reason: "the audit is over".to_owned() }).await?;
    // A typing error is told from a broken disk, and is not tried again.
    let (policy, reason) = ("M99".to_owned(), String::new());
    match run.command(Command::ChoosePolicy { policy, pin: false, reason }).await {
        Err(error @ Error::Refused { .. }) => acted.push(format!("refused: {error}")),
        other => acted.push(format!("{other:?}")),
    }
    Ok(acted)
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "a test takes what it shows alone")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("give the run's folder")?;
    let runtime = Runtime::builder(dir).iterations(0).start().await?;
    for line in choose(&runtime.handle()).await? {
        println!("{line}");
    }
    Ok(runtime.shutdown().await?)
}
