//! The programs in `examples/` do what they say, on runs that are there.

#[path = "../../examples/agent_service.rs"]
mod agent_service;
#[path = "../../examples/choose_policy.rs"]
mod choose_policy;
#[path = "../../examples/embed.rs"]
mod embed;
#[path = "../../examples/follow.rs"]
mod follow;
#[path = "../../examples/wait_and_wake.rs"]
mod wait_and_wake;

use crate::runs::{alone, changed_run};
use gradus::prelude::*;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Awaits on an executor that is none of gradus's.
fn awaited<T>(future: impl Future<Output = T>) -> T {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_io().build().unwrap();
    executor.block_on(future)
}

#[test]
fn a_web_service_embeds_a_run() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    awaited(async {
        let runtime = Runtime::builder(&dir).iterations(0).start().await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = axum::serve(listener, embed::routes(runtime.handle())).into_future();
        let service = tokio::spawn(service);
        let ask = move |method: &'static str, path: &'static str, body: &'static str| {
            tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let length = body.len();
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: \
                     application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                stream.write_all(request.as_bytes()).unwrap();
                let mut said = String::new();
                stream.read_to_string(&mut said).unwrap();
                said
            })
        };
        let added = ask("POST", "/prompts", r#"["add 9 and 70 .", "add 9 and 70 ."]"#).await;
        assert!(added.unwrap().ends_with("\r\n1"), "one of the two is new");
        let answer = ask("POST", "/answer", r#""name 3 animals .""#).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with('"'), "{answer}");
        let status = ask("GET", "/status", "").await.unwrap();
        assert!(status.contains(r#""prompts_waiting":"#), "{status}");
        service.abort();
        runtime.shutdown().await.unwrap();
    });
}

/// Asks a service that listens there; what it says.
fn ask(
    address: std::net::SocketAddr,
    (method, path): (&str, &str),
    key: &str,
    body: &str,
) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-key: {key}\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn an_agent_service_mounts_all_of_it() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |config| config.sampling.max_new_tokens = 8);
    awaited(async {
        let runtime = Runtime::builder(&dir).iterations(0).start().await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service =
            axum::serve(listener, agent_service::app(runtime.handle(), "key")).into_future();
        let service = tokio::spawn(service);
        let all = move || {
            let task = r#"{"task": "add 2 and 3 ."}"#;
            let done = ask(address, ("POST", "/agent"), "key", task);
            assert!(done.starts_with("HTTP/1.1 200") && done.contains(r#""by":"M3""#), "{done}");
            assert!(ask(address, ("POST", "/agent"), "no", task).starts_with("HTTP/1.1 401"));
            assert!(
                ask(address, ("GET", "/learning/api/status"), "no", "").starts_with("HTTP/1.1 401")
            );
            let page = ask(address, ("GET", "/learning/"), "key", "");
            assert!(page.contains("page/app.js"), "{page}");
            let bare = ask(address, ("GET", "/learning"), "key", "");
            assert!(bare.contains("location: /learning/"), "its files lie beside it: {bare}");
            let chat =
                r#"{"messages": [{"role": "user", "content": "add 2 and 3 ."}], "max_tokens": 4}"#;
            let chat = ask(address, ("POST", "/learning/v1/chat/completions"), "key", chat);
            assert!(chat.starts_with("HTTP/1.1 200"), "{chat}");
            let vote = r#"{"messages": [{"role": "user", "content": "a"}], "answer": "b", "rating": "up"}"#;
            let vote = ask(address, ("POST", "/learning/v1/feedback"), "key", vote);
            assert!(vote.starts_with("HTTP/1.1 200"), "{vote}");
            let paused =
                ask(address, ("POST", "/learning/api/commands"), "key", r#"{"command": "pause"}"#);
            assert!(paused.starts_with("HTTP/1.1 200"), "{paused}");
        };
        tokio::task::spawn_blocking(all).await.unwrap();
        service.abort();
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn a_run_waits_and_wakes() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |config| {
        config.iterations = 9;
        config.prompts.generate = false;
        config.prompts.wait_for = 3;
    });
    awaited(async {
        let runtime = Runtime::builder(&dir).start().await.unwrap();
        let seen = wait_and_wake::feed(&runtime.handle()).await.unwrap();
        assert!(matches!(seen[0], Activity::WaitingForPrompts { wanted: 3, .. }), "{seen:?}");
        assert_eq!(seen.last(), Some(&Activity::Working), "{seen:?}");
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn a_policy_is_chosen() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    awaited(async {
        let runtime = Runtime::builder(&dir).iterations(0).start().await.unwrap();
        let acted = choose_policy::choose(&runtime.handle()).await.unwrap();
        let [first, back, pinned, refused] = acted.as_slice() else { panic!("{acted:?}") };
        assert!(first != back && pinned == "M1" && refused.starts_with("refused:"), "{acted:?}");
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn the_log_is_followed_and_an_answer_streamed() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = changed_run(&root, |_| {});
    awaited(async {
        let runtime = Runtime::builder(&dir).iterations(0).start().await.unwrap();
        let run = runtime.handle();
        let promoted = follow::promotions(&run).await.unwrap();
        assert_eq!(promoted.first().map(String::as_str), Some("M1"), "{promoted:?}");
        let question = "name 3 animals that start with c .";
        let pieces = follow::stream(&run, question).await.unwrap();
        let policy = run.policy().await.unwrap();
        let whole = policy.answer(vec![Message::user(question)]).await.unwrap();
        assert_eq!(pieces.concat(), whole.text);
        assert!(pieces.len() > 1, "piece by piece: {pieces:?}");
        runtime.shutdown().await.unwrap();
        assert!(matches!(run.status().await, Err(Error::Closed)));
    });
}
