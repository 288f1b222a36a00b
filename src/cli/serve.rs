//! `gradus serve`: a daemon that works on a run, answers with its policies, takes votes, and shows itself.

use super::demo::Temporary;
use super::recipe::RecipeScale;
use super::screen::Screen;
use super::{ExitStatus, demo, drive, notify, output, signals};
use gradus::http::{HttpAccess, HttpSettings, Listening, ServerSettings, Token, router, serve};
use gradus::lm::cancel::Cancel;
use gradus::runtime::{Folder, Goal, Handle, WaitOutcome};
use gradus::{Code, Error};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Work on a run, and answer for it over HTTP.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    #[arg(required_unless_present = "demo")]
    dir: Option<PathBuf>,
    /// Serve the demo, which needs no model: in the folder, or in one that goes in the end.
    #[arg(long)]
    demo: bool,
    /// Where to listen: an address, or unix:PATH. Port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:8765", value_name = "ADDRESS")]
    listen: Vec<String>,
    /// The token that who changes the run must have; DIR/token, which is made, where it is not said.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Let everybody on this machine change the run.
    #[arg(long, conflicts_with = "token_file")]
    insecure_no_token: bool,
    #[command(flatten)]
    instead: drive::Instead,
}

/// Where to listen.
enum ListenPlace {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

fn not_listening(place: &str, why: impl std::fmt::Display) -> Error {
    Error::refused(Code::NotListening, format!("{place} cannot be listened on: {why}"))
}

impl ListenPlace {
    fn of(text: &str) -> Result<ListenPlace, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(ListenPlace::Unix(path.into()));
        }
        let found = text.to_socket_addrs().map(|mut all| all.next());
        match found {
            Ok(Some(address)) => Ok(ListenPlace::Tcp(address)),
            Ok(None) => Err(not_listening(text, "it is no address")),
            Err(error) => {
                Err(not_listening(text, format!("{error} (127.0.0.1:8765, or unix:PATH)")))
            }
        }
    }

    fn is_here(&self) -> bool {
        match self {
            ListenPlace::Tcp(address) => address.ip().is_loopback(),
            ListenPlace::Unix(_) => true,
        }
    }

    async fn listen(&self) -> Result<Listening, Error> {
        match self {
            ListenPlace::Tcp(address) => Listening::tcp(*address)
                .await
                .map_err(|error| not_listening(&address.to_string(), error)),
            ListenPlace::Unix(path) => Listening::unix(path)
                .map_err(|error| not_listening(&format!("unix:{}", path.display()), error)),
        }
    }
}

/// The token in a file that nobody else may read.
fn token_in(path: &Path) -> Result<Token, Error> {
    let io = |error| Error::io(path, error);
    let mode = std::fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::refused(
            Code::NotAllowed,
            format!(
                "{} holds a token, and others may read it (mode {:o}): chmod 600 {}",
                path.display(),
                mode & 0o777,
                path.display()
            ),
        ));
    }
    Token::new(&std::fs::read_to_string(path).map_err(io)?).ok_or_else(|| {
        Error::refused(
            Code::NotAllowed,
            format!(
                "{} holds no token: at least 16 visible ASCII characters on one line",
                path.display()
            ),
        )
    })
}

/// The token of a run's folder; a new one where there is none.
fn token_of(folder: &Folder) -> Result<Token, Error> {
    let path = folder.token();
    let io = |error| Error::io(&path, error);
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match new {
        Ok(mut file) => {
            let token = Token::random().map_err(io)?;
            writeln!(file, "{}", token.text()).map_err(io)?;
            Ok(token)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => token_in(&path),
        Err(error) => Err(io(error)),
    }
}

fn access(
    arguments: &Arguments,
    folder: &Folder,
    places: &[ListenPlace],
) -> Result<HttpAccess, Error> {
    let elsewhere = !places.iter().all(ListenPlace::is_here);
    if arguments.insecure_no_token {
        return match elsewhere {
            false => Ok(HttpAccess::LocalWithoutToken),
            true => Err(Error::refused(
                Code::NotAllowed,
                "--insecure-no-token is for addresses of this machine alone: leave it out, or listen \
                 on 127.0.0.1",
            )),
        };
    }
    let token = match &arguments.token_file {
        Some(path) => token_in(path)?,
        None => token_of(folder)?,
    };
    Ok(if elsewhere { HttpAccess::Token(token) } else { HttpAccess::Local(token) })
}

/// What a person is told when it listens.
fn greeting(listening: &[Listening], arguments: &Arguments, folder: &Folder) -> String {
    let mut text = String::new();
    for address in listening.iter().filter_map(Listening::address) {
        text.push_str(&format!("http://{address}/  (OpenAI's clients: http://{address}/v1)\n"));
    }
    if !arguments.insecure_no_token {
        let path = arguments.token_file.clone().unwrap_or_else(|| folder.token());
        text.push_str(&format!("who changes the run needs the token in {}\n", path.display()));
    }
    text
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let places =
        arguments.listen.iter().map(|text| ListenPlace::of(text)).collect::<Result<Vec<_>, _>>()?;
    let (folder, _temporary) = match (&arguments.dir, arguments.demo) {
        (dir, true) => {
            let (folder, temporary) = Temporary::or_kept(dir.as_ref());
            let scale = RecipeScale { reduced: false, tuning: false };
            demo::laid_out(&folder, 1, scale, None)?;
            (folder, Some(temporary))
        }
        (dir, false) => (Folder::at(dir.clone().unwrap_or_default()), None),
    };
    let stop = signals::stop_flag()?;
    let thread = |error| Error::io("threads for HTTP", error);
    let http = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("gradus-http")
        .enable_all()
        .build()
        .map_err(thread)?;
    // Before the run is opened: who cannot listen has touched nothing.
    let mut listening = Vec::new();
    for place in &places {
        listening.push(http.block_on(place.listen())?);
    }
    let screen = Arc::new(Screen::new(""));
    let instead = arguments.instead.clone();
    let oracle = super::recipe::oracle_of(&folder);
    let runtime = drive::started(&folder, &screen, instead, oracle, true)?;
    let settings = HttpSettings::new(access(arguments, &folder, &places)?);
    output::text(&greeting(&listening, arguments, &folder))?;
    let servers = begin(&http, runtime.handle(), settings, listening, &stop);
    notify::ready();
    let outcome = runtime.wait_blocking(Goal::Forever, &stop, |view| screen.tick(view, &runtime));
    notify::stopping();
    // Whoever is being answered is answered to the end, as long as the run is there.
    stop.cancel();
    for server in servers {
        let _ = http.block_on(server);
    }
    let over = runtime.handle().view().map(|view| view.finished()).unwrap_or_default();
    drop(runtime);
    screen.close();
    http.shutdown_background();
    match outcome? {
        WaitOutcome::Stopped => {
            eprintln!("stopped; go on with: gradus serve {}", folder.path().display());
            Ok(ExitStatus::Done)
        }
        other => drive::finish(&other, &folder, over),
    }
}

fn begin(
    http: &tokio::runtime::Runtime,
    handle: Handle,
    settings: HttpSettings,
    listening: Vec<Listening>,
    stop: &Cancel,
) -> Vec<tokio::task::JoinHandle<()>> {
    let router = router(handle, settings);
    let one = |listening| {
        http.spawn(serve(router.clone(), listening, ServerSettings::default(), stop.clone()))
    };
    listening.into_iter().map(one).collect()
}
