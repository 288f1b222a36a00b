//! SOCKET: the surface between processes. The one that works on a run listens on a Unix socket in its
//! folder, for its owner alone; a request is a line of JSON, and so is the answer. Whoever finds nobody
//! at work does it alone, with the folder's lock.
//!
//! ```text
//! -> {"version":"0.1.0","command":"raise_iterations","total":7}
//! <- {"done":{"answer":"recorded","at":1041}}
//! -> {"version":"0.1.0","query":"status"}
//! <- {"reply":{"reply":"status", ...}}
//! <- {"refused":{"message":"...","exit_code":2}}
//! ```

use super::core::Core;
use super::fold::fold;
use super::folder::Folder;
use super::surface::{Answer, Command, Query, Reply};
use crate::error::{Code, Error, ExitStatus};
use crate::log::LogError;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The socket's name in the run's folder.
const NAME: &str = "socket";
/// The folder in which it is made, so that nobody but its owner can reach it at any time.
const MAKING: &str = "socket.part";
/// A request is read within this time, or its sender is gone.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// Compiling a large component takes half a minute.
const ANSWER_PATIENCE: Duration = Duration::from_secs(180);
/// Until a process that has just begun to work listens.
const LISTEN_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a request at most: a component of 64 MiB as base64 fits.
const REQUEST_BYTES_MAX: u64 = 96 << 20;
/// Requests that are answered at the same time.
const AT_ONCE: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Ask {
    Command(Command),
    Query(Query),
}

#[derive(Serialize, Deserialize)]
struct Request {
    version: String,
    #[serde(flatten)]
    ask: Ask,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    Done(Answer),
    Reply(Reply),
    Refused { code: Code, message: String, exit_code: u8 },
}

/// Listens as long as it lives.
pub(super) struct Listener {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens for what others ask of the run in `folder`.
    ///
    /// # Errors
    /// When the socket cannot be made, or the system gives no thread.
    pub fn start(folder: &Folder, core: &Arc<Core>) -> std::io::Result<Listener> {
        let path = folder.path().join(NAME);
        let socket = bind(folder.path())?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, core) = (stop.clone(), Arc::downgrade(core));
        let listen = move || {
            let busy = Arc::new(AtomicUsize::new(0));
            for connection in socket.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                match connection {
                    Ok(connection) => serve(connection, core.clone(), &busy),
                    // Out of file handles, say: whoever asks tries again.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        };
        let thread = std::thread::Builder::new().name("gradus-socket".to_owned()).spawn(listen)?;
        Ok(Listener { path, stop, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // It waits for somebody; nobody else may be answered any more.
        let woken = self.path.parent().and_then(|folder| connect(folder).ok()).is_some();
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

/// A path for a socket in a folder whose own path may be longer than the 108 bytes that an address
/// has room for.
fn address(folder: &File, path: &Path, name: &str) -> PathBuf {
    match cfg!(target_os = "linux") {
        true => PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd())),
        false => path.join(name),
    }
}

/// Makes the socket where nobody else can reach it, and gives it its name then. One that a process
/// left behind is replaced.
fn bind(folder: &Path) -> std::io::Result<UnixListener> {
    let making = folder.join(MAKING);
    let _ = std::fs::remove_dir_all(&making);
    DirBuilder::new().mode(0o700).create(&making)?;
    let dir = File::open(&making)?;
    let socket = UnixListener::bind(address(&dir, &making, NAME))?;
    let made = making.join(NAME);
    std::fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    std::fs::rename(&made, folder.join(NAME))?;
    let _ = std::fs::remove_dir(&making);
    Ok(socket)
}

fn connect(folder: &Path) -> std::io::Result<UnixStream> {
    let dir = File::open(folder)?;
    UnixStream::connect(address(&dir, folder, NAME))
}

/// Answers one request on a thread of its own.
fn serve(connection: UnixStream, core: Weak<Core>, busy: &Arc<AtomicUsize>) {
    let count = busy.clone();
    if count.fetch_add(1, Ordering::AcqRel) >= AT_ONCE {
        count.fetch_sub(1, Ordering::AcqRel);
        let message = format!("{AT_ONCE} others are being answered; ask again");
        let refused = Response::Refused { code: Code::ProcessBusy, message, exit_code: 1 };
        let _ = send(&connection, &refused);
        return;
    }
    let answer = move || {
        let response = answer(&connection, &core);
        if let Err(error) = send(&connection, &response) {
            tracing::warn!(%error, "whoever asked is gone before the answer");
        }
        count.fetch_sub(1, Ordering::AcqRel);
    };
    if std::thread::Builder::new().name("gradus-asked".to_owned()).spawn(answer).is_err() {
        busy.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(connection: &UnixStream, core: &Weak<Core>) -> Response {
    let done = read_line(connection).and_then(|line| {
        let request: Request = serde_json::from_slice(&line).map_err(|error| {
            let ours = env!("CARGO_PKG_VERSION");
            Error::refused(Code::RequestUnreadable, format!(
                "the process that works on the run is gradus {ours} and does not know this request: \
                 {error}"
            ))
        })?;
        let core = core.upgrade().ok_or(Error::Closed)?;
        match request.ask {
            Ask::Command(command) => core.carry_out(command).map(Response::Done),
            Ask::Query(query) => core.tell(&query).map(Response::Reply),
        }
    });
    done.unwrap_or_else(|error| Response::Refused {
        code: error.code(),
        message: error.message(),
        exit_code: error.exit_status().code(),
    })
}

fn gone(error: std::io::Error) -> Error {
    Error::io(NAME, error)
}

fn read_line(connection: &UnixStream) -> Result<Vec<u8>, Error> {
    connection.set_read_timeout(Some(READ_PATIENCE)).map_err(gone)?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(connection.take(REQUEST_BYTES_MAX));
    reader.read_until(b'\n', &mut line).map_err(gone)?;
    match line.last() {
        Some(b'\n') => Ok(line),
        _ if line.len() as u64 >= REQUEST_BYTES_MAX => Err(Error::refused(
            Code::RequestUnreadable,
            format!("a request of more than {REQUEST_BYTES_MAX} bytes"),
        )),
        _ => Err(Error::refused(Code::RequestUnreadable, "the request has no end".to_owned())),
    }
}

fn send(mut connection: &UnixStream, response: &impl Serialize) -> std::io::Result<()> {
    connection.set_write_timeout(Some(READ_PATIENCE))?;
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    connection.write_all(&line)
}

/// Asks the process that works on the run to do something, or does it here when none does.
///
/// # Errors
/// What was wrong with it; [`Error::Halted`] when nobody answers.
pub fn command(folder: &Folder, command: Command) -> Result<Answer, Error> {
    match ask(folder, Ask::Command(command))? {
        Response::Done(answer) => Ok(answer),
        other => Err(odd(&other)),
    }
}

/// Asks the process that works on the run what it knows, or reads it from the log when none does.
///
/// # Errors
/// When nobody answers, or the log cannot be read.
pub fn query(folder: &Folder, query: &Query) -> Result<Reply, Error> {
    match ask(folder, Ask::Query(query.clone()))? {
        Response::Reply(reply) => Ok(reply),
        other => Err(odd(&other)),
    }
}

/// Asks the process that works on the run at once, or not at all: for whoever can do without.
pub fn ask_if_reachable(folder: &Folder, query: &Query) -> Option<Reply> {
    let connection = connect(folder.path()).ok()?;
    match exchange(folder, &connection, Ask::Query(query.clone()), READ_PATIENCE).ok()? {
        Response::Reply(reply) => Some(reply),
        Response::Done(_) | Response::Refused { .. } => None,
    }
}

fn odd(response: &Response) -> Error {
    match response {
        // It was written for a person by who refused it.
        Response::Refused { code, message, exit_code }
            if *exit_code == ExitStatus::Failed.code() =>
        {
            Error::halted(*code, message.clone())
        }
        Response::Refused { code, message, .. } => Error::refused(*code, message.clone()),
        Response::Done(_) | Response::Reply(_) => Error::halted(
            Code::RequestUnreadable,
            "the process that works on the run answered something else".to_owned(),
        ),
    }
}

fn ask(folder: &Folder, ask: Ask) -> Result<Response, Error> {
    if folder.holder().is_none() {
        let alone = match &ask {
            Ask::Command(command) => Core::alone(folder)
                .and_then(|core| core.carry_out(command.clone()))
                .map(Response::Done),
            // Who reads makes and locks nothing.
            Ask::Query(query) => read(folder, query).map(Response::Reply),
        };
        match alone {
            // Somebody was faster.
            Err(Error::Log(LogError::InUse { .. })) => {}
            done => return done,
        }
    }
    exchange(folder, &reach(folder)?, ask, ANSWER_PATIENCE)
}

/// What the log of a run says that nobody works on.
fn read(folder: &Folder, query: &Query) -> Result<Reply, Error> {
    let log = folder.read_log()?;
    super::core::told_by(&fold(&log)?, &log, query)
}

fn exchange(
    folder: &Folder,
    connection: &UnixStream,
    ask: Ask,
    patience: Duration,
) -> Result<Response, Error> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let unknown = |error: std::io::Error| {
        Error::halted(
            Code::NoAnswer,
            format!(
                "the process that works on {} did not answer ({error}); whether it did what was asked is \
             not known: look, and ask again",
                folder.path().display()
            ),
        )
    };
    send(connection, &Request { version, ask }).map_err(unknown)?;
    connection.set_read_timeout(Some(patience)).map_err(unknown)?;
    let mut line = Vec::new();
    BufReader::new(connection).read_until(b'\n', &mut line).map_err(unknown)?;
    if line.is_empty() {
        return Err(unknown(ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&line).map_err(|error| unknown(error.into()))
}

/// A connection to whoever works on the run; it may have just begun and not listen yet.
fn reach(folder: &Folder) -> Result<UnixStream, Error> {
    let asked = Instant::now();
    loop {
        match connect(folder.path()) {
            Ok(connection) => return Ok(connection),
            Err(_) if asked.elapsed() < LISTEN_PATIENCE && folder.holder().is_some() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => {
                return Err(Error::halted(
                    Code::NoAnswer,
                    format!(
                        "a process works on {} and cannot be reached ({error}); nothing was changed. Try \
                     again, or stop that process",
                        folder.path().display()
                    ),
                ));
            }
        }
    }
}
