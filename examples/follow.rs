//! The log as it grows, and answers token by token. A handle is weak: after the shutdown everything
//! says that the run is closed, and the folder is free for another process.
//!
//! ```text
//! cargo run --release --example follow -- DIR
//! ```

use gradus::prelude::*;

/// The promotions that the log has, until it has been read to its end.
pub async fn promotions(run: &Handle) -> Result<Vec<String>, Error> {
    let mut log = run.subscribe(Offset(0))?;
    let (mut promoted, end) = (Vec::new(), run.view()?.next);
    loop {
        match log.next().await? {
            Delivered::Record(record) if record.offset.0 + 1 >= end.0 => return Ok(promoted),
            Delivered::Record(record) => {
                if let Event::CheckpointPromoted { iteration, .. } = record.event {
                    promoted.push(format!("M{iteration}"));
                }
            }
            // A log that was compacted has gaps; what they came to is in the view.
            _ => {}
        }
    }
}

/// An answer, as it comes.
pub async fn stream(run: &Handle, question: &str) -> Result<Vec<String>, Error> {
    let policy = run.policy().await?;
    let mut tokens = policy.stream(vec![Message::user(question)], policy.settings());
    let mut pieces = Vec::new();
    while let Some(piece) = tokens.next().await {
        pieces.push(piece?);
    }
    Ok(pieces)
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "a test takes what it shows alone")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("give the run's folder")?;
    let runtime = Runtime::builder(dir).iterations(0).start().await?;
    let run = runtime.handle();
    println!("promoted: {}", promotions(&run).await?.join(", "));
    println!("{}", stream(&run, "name 3 animals .").await?.join("|"));
    runtime.shutdown().await?;
    assert!(matches!(run.status().await, Err(Error::Closed)));
    Ok(())
}
