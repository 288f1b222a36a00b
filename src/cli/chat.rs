//! `gradus chat`: talk with a policy of a run, or with two side by side.

use super::{ExitStatus, devices, output, signals};
use crossbeam_channel::RecvTimeoutError;
use gradus::domain::Message;
use gradus::lm::cancel::Cancel;
use gradus::runtime::{AnswerSettings, Folder, OpenedRun, PolicyRow, ServedPolicy};
use gradus::{Code, Error};
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

/// Talk with a policy of a run, or with two side by side. A line is a turn; /reset begins anew, /quit
/// ends. Nothing that is said here is recorded.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder. A process may work on it meanwhile.
    dir: PathBuf,
    /// latest, base, M2, or the beginning of a policy's hash; twice for two that answer the same.
    #[arg(long, default_value = "latest", num_args = 1)]
    policy: Vec<String>,
    /// Said before the first turn.
    #[arg(long)]
    system: Option<String>,
    /// Default: the run's sampling.temperature.
    #[arg(long)]
    temperature: Option<f64>,
    /// Default: the run's sampling.max_new_tokens.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    /// Same seed, same answers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    wish: devices::Wish,
}

/// One that answers, and what was said so far.
struct Partner {
    name: String,
    policy: ServedPolicy,
    turns: Vec<Message>,
}

impl Partner {
    fn begin(&mut self, system: Option<&str>) {
        self.turns = system.iter().map(|text| Message::system(*text)).collect();
    }
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let run = OpenedRun::open(&Folder::at(&arguments.dir), arguments.wish.device)?;
    devices::say(run.device());
    let mut partners = Vec::new();
    for wanted in &arguments.policy {
        let row: PolicyRow = run.policy(wanted)?;
        let policy = run.serve(&row)?;
        partners.push(Partner { name: row.name, policy, turns: Vec::new() });
    }
    let settings = settings(arguments, &partners)?;
    let stop = signals::stop_flag()?;
    let system = arguments.system.as_deref();
    partners.iter_mut().for_each(|partner| partner.begin(system));
    let people = std::io::stdin().is_terminal();
    if people {
        let names: Vec<&str> = partners.iter().map(|partner| partner.name.as_str()).collect();
        let (names, dir) = (names.join(" and "), arguments.dir.display());
        eprintln!("{names} of {dir}. /reset begins anew, /quit ends");
    }
    let lines = lines()?;
    let mut turn = 0;
    loop {
        if people {
            eprint!("> ");
        }
        let Some(line) = next(&lines, &stop) else {
            return Ok(if stop.is_cancelled() { ExitStatus::Stopped } else { ExitStatus::Done });
        };
        match line?.trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(ExitStatus::Done),
            "/reset" => partners.iter_mut().for_each(|partner| partner.begin(system)),
            said => {
                turn += 1;
                let settings = settings.clone().seed(arguments.seed.wrapping_add(turn));
                for partner in &mut partners {
                    match answer(partner, said, &settings, &stop) {
                        // Too long for the model, mostly: one may begin anew.
                        Err(error) if people => eprintln!("error: {error}"),
                        done => done?,
                    }
                }
            }
        }
    }
}

fn settings(arguments: &Arguments, partners: &[Partner]) -> Result<AnswerSettings, Error> {
    let nobody = || Error::refused(Code::Defect, "nobody was named to talk with");
    let mut settings = partners.first().ok_or_else(nobody)?.policy.settings();
    if let Some(temperature) = arguments.temperature {
        settings = settings.temperature(temperature);
    }
    if let Some(most) = arguments.max_new_tokens {
        settings = settings.max_new_tokens(most);
    }
    Ok(settings)
}

type InputLines = crossbeam_channel::Receiver<Result<String, Error>>;

/// The lines of standard input, read on a thread: a signal does not wait for one.
fn lines() -> Result<InputLines, Error> {
    let (send, lines) = crossbeam_channel::bounded(0);
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|error| Error::io("standard input", error));
            if send.send(line).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("gradus-lines".to_owned()).spawn(read);
    thread.map_err(|error| Error::io("a thread", error))?;
    Ok(lines)
}

/// The next line; nothing at the end of them, and after a signal.
fn next(lines: &InputLines, stop: &Cancel) -> Option<Result<String, Error>> {
    while !stop.is_cancelled() {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}

/// Says something to one of them and writes what it answers, as it comes.
fn answer(
    partner: &mut Partner,
    said: &str,
    settings: &AnswerSettings,
    stop: &Cancel,
) -> Result<(), Error> {
    partner.turns.push(Message::user(said));
    output::text(&format!("{}: ", partner.name))?;
    let mut whole = String::new();
    let mut stream = partner.policy.stream(partner.turns.clone(), settings.clone());
    while let Some(piece) = stream.next_blocking() {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                output::text("\n")?;
                partner.turns.pop();
                return Err(error);
            }
        };
        output::text(&piece)?;
        whole.push_str(&piece);
        if stop.is_cancelled() {
            break;
        }
    }
    output::text("\n")?;
    partner.turns.push(Message::assistant(whole));
    Ok(())
}
