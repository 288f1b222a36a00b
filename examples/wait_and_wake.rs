//! A run that waits for prompts at no cost and wakes when enough have come: `prompts.wait_for: 3` in
//! its settings. What comes first is answered first, but for prompts with a higher priority.
//!
//! ```text
//! cargo run --release --example wait_and_wake -- DIR
//! ```

use gradus::prelude::*;

/// Adds two prompts and then one that is more urgent; what the run was at after each.
pub async fn feed(run: &Handle) -> Result<Vec<Activity>, Error> {
    let mut seen = vec![run.status().await?.activity];
    let given = |text: &str| Prompt::user(text, PromptOrigin::Given);
    let urgent = given("multiply 3 and 4 .").with_priority(10);
    for prompt in [given("add 30 and 4 ."), given("add 31 and 5 ."), urgent] {
        run.submit(vec![prompt]).await?;
        seen.push(run.status().await?.activity);
    }
    Ok(seen)
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "a test takes what it shows alone")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("give the run's folder")?;
    let runtime = Runtime::builder(dir).start().await?;
    for activity in feed(&runtime.handle()).await? {
        println!("{activity:?}");
    }
    Ok(runtime.shutdown().await?)
}
