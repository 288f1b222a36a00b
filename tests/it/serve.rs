//! `gradus serve`: a run over HTTP, asked as programs ask it.

use crate::runs::{alone, copied, digest, gradus, json as told, whole};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// What came back.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The data of server-sent events.
    fn events(&self) -> Vec<String> {
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(str::to_owned)
            .collect()
    }
}

/// Takes the lengths out of a body in chunks.
fn whole_body(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return body };
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

/// A served copy of a run that is over.
struct Served {
    _root: tempfile::TempDir,
    dir: PathBuf,
    child: Child,
    address: String,
    token: String,
}

impl Served {
    fn start(arguments: &[&str]) -> Served {
        let root = tempfile::tempdir().unwrap();
        let dir = copied(&whole().dir(), &root.path().join("run"));
        Served::of(root, dir, arguments)
    }

    fn of(root: tempfile::TempDir, dir: PathBuf, arguments: &[&str]) -> Served {
        let mut command = gradus();
        command.args(["serve", "--device", "cpu", "--listen", "127.0.0.1:0"]).args(arguments);
        let mut child = command.arg(&dir).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        let token = std::fs::read_to_string(dir.join("token")).unwrap_or_default();
        Served { _root: root, dir, child, address, token: token.trim().to_owned() }
    }

    fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let rest = &bytes[end + 4..];
        let chunked = head.contains("transfer-encoding: chunked");
        let body = if chunked { whole_body(rest) } else { rest.to_vec() };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body: String::from_utf8(body).unwrap() }
    }

    fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    /// Without the token.
    fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &["Content-Type: application/json"], &body.to_string())
    }

    fn post_with_token(&self, path: &str, body: &Value) -> Reply {
        let token = format!("Authorization: Bearer {}", self.token);
        self.send("POST", path, &["Content-Type: application/json", &token], &body.to_string())
    }

    /// Ends it as a service manager does.
    fn stop(mut self) -> (tempfile::TempDir, PathBuf) {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "a signal is no failure");
        let root = std::mem::replace(&mut self._root, tempfile::tempdir().unwrap());
        (root, self.dir.clone())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn asking(extra: Value) -> Value {
    let mut asked = json!({
        "model": "latest", "seed": 7, "temperature": 1.0, "max_tokens": 12,
        "messages": [{"role": "user", "content": "add 2 and 3 ."}],
    });
    for (name, value) in extra.as_object().unwrap() {
        asked[name] = value.clone();
    }
    asked
}

fn content(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn chats_are_answered_whole_and_as_they_come() {
    let _alone = alone();
    let served = Served::start(&[]);
    let path = "/v1/chat/completions";
    let first = served.post(path, &asking(json!({})));
    let text = content(&first);
    assert_eq!(first.json()["model"], "M3");
    let usage = &first.json()["usage"];
    assert!(usage["completion_tokens"].as_u64().unwrap() <= 12, "{usage}");
    assert_eq!(content(&served.post(path, &asking(json!({})))), text, "the same seed");
    // Part by part it is the same, also beside others.
    let streamed = asking(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let others: Vec<_> = (0..6)
        .map(|seed| {
            let address = served.address.clone();
            let body = asking(json!({"seed": seed, "n": 3})).to_string();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let length = body.len();
                write!(
                    stream,
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                    Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                )
                .unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text.starts_with("HTTP/1.1 200")
            })
        })
        .collect();
    let reply = served.post(path, &streamed);
    assert!(others.into_iter().all(|other| other.join().unwrap()));
    let events = reply.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), text);
    assert_eq!(chunks.last().unwrap()["usage"], *usage);
    // A text that ends it, and several answers with their log-probabilities.
    let several = served.post(path, &asking(json!({"n": 3, "logprobs": true})));
    let choices = several.json()["choices"].as_array().unwrap().clone();
    assert_eq!((choices.len(), &choices[0]["message"]["content"]), (3, &text.clone().into()));
    let tokens = choices[0]["logprobs"]["content"].as_array().unwrap();
    assert!(tokens.iter().all(|token| token["logprob"].as_f64().unwrap() <= 0.0), "{tokens:?}");
    let (stop, _) = text.split_at(text.len().min(3));
    let stopped = served.post(path, &asking(json!({"stop": [stop]})));
    assert_eq!(content(&stopped), "", "it begins with the text that ends it");
    // The same of OpenAI's other two.
    let prompt = json!({"model": "M1", "prompt": "add 2 and", "max_tokens": 4, "temperature": 0});
    let completion = served.post("/v1/completions", &prompt);
    assert_eq!((completion.status, &completion.json()["model"]), (200, &"M1".into()));
    let asked = json!({"input": "add 2 and 3 .", "seed": 7, "temperature": 1.0,
        "max_output_tokens": 12});
    let response = served.post("/v1/responses", &asked).json();
    assert_eq!(response["output"][0]["content"][0]["text"], text.as_str(), "{response}");
    let mut streamed = asked;
    streamed["stream"] = true.into();
    let events = served.post("/v1/responses", &streamed).events();
    let numbers = events.iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
    let numbers: Vec<u64> = numbers.map(|e| e["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let (_root, dir) = served.stop();
    assert_eq!(digest(&dir), whole().digest, "who chats changes nothing of the run");
}

#[test]
fn what_is_asked_wrongly_is_refused_by_name() {
    let _alone = alone();
    let served = Served::start(&[]);
    let path = "/v1/chat/completions";
    for (extra, status, wanted) in [
        (json!({"model": "M9"}), 404, "M9"),
        (json!({"temperature": 3}), 400, "temperature"),
        (json!({"n": 0}), 400, "n is 0"),
        (json!({"tools": [{"type": "function"}]}), 400, "tools"),
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": [{"role": "user", "content": "add ".repeat(3000)}]}), 400, "tokens"),
        (json!({"max_tokens": 0}), 400, "max_tokens"),
    ] {
        let reply = served.post(path, &asking(extra.clone()));
        let error = reply.json()["error"].clone();
        assert_eq!(reply.status, status, "{extra}: {error}");
        assert!(error["message"].as_str().unwrap().contains(wanted), "{error}");
    }
    let bad = served.send("POST", path, &["Content-Type: application/json"], "{\"messages\": ");
    assert!(bad.status == 400 && bad.body.contains("column"), "{}", bad.body);
    let kind = served.send("POST", path, &["Content-Type: text/plain"], "{}");
    assert_eq!(kind.status, 415, "{}", kind.body);
    let large =
        served.send("POST", path, &["Content-Type: application/json"], &" ".repeat(5 << 20));
    assert_eq!(large.status, 413, "{}", large.body);
    let nothing = served.get("/v1/nothing");
    assert!(nothing.status == 404 && nothing.body.contains("GRADUS1202"), "{}", nothing.body);
    assert_eq!(served.get("/healthz").status, 200);
}

#[test]
fn nobody_changes_anything_without_the_token() {
    let _alone = alone();
    let served = Served::start(&[]);
    let before = served.get("/api/status").json()["records"].clone();
    let commands = [
        json!({"command": "pause"}),
        json!({"command": "stop"}),
        json!({"command": "raise_iterations", "total": 99}),
        json!({"command": "choose_policy", "policy": "M1", "pin": true, "reason": "a"}),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/api/commands", "/v1/feedback", "/api/status", "/", "/v1/models", "/metrics"]
        {
            let headers =
                ["Content-Type: application/json", "Authorization: Bearer wrong-wrong-wrong"];
            for command in &commands {
                let reply = served.send(method, path, &headers, &command.to_string());
                assert_eq!(reply.status, 401, "{method} {path}: {}", reply.body);
            }
        }
    }
    for headers in [["Host: evil.example"], ["Origin: https://evil.example"]] {
        // A second Host is refused before anybody looks at it.
        let reply = served.send("GET", "/api/status", &headers, "");
        assert!([400, 403].contains(&reply.status), "{headers:?}: {}", reply.body);
    }
    assert_eq!(served.get("/api/status").json()["records"], before, "nothing was recorded");
    let token = std::fs::metadata(served.dir.join("token")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&token.permissions()) & 0o777, 0o600);
    // With it, the same command is done and recorded.
    let chosen = served.post_with_token("/api/commands", &commands[3]);
    assert_eq!(chosen.status, 200, "{}", chosen.body);
    let models = served.get("/v1/models").json();
    let latest = &models["data"][0];
    assert_eq!((&latest["id"], &latest["policy"]), (&"latest".into(), &"M1".into()), "{models}");
    let chat = served.post("/v1/chat/completions", &asking(json!({})));
    assert_eq!(chat.json()["model"], "M1", "a new policy answers the next request");
}

#[test]
fn votes_are_kept_and_told_again() {
    let _alone = alone();
    let served = Served::start(&[]);
    let both: Vec<String> = [1, 2]
        .map(|seed| {
            served.post("/v1/chat/completions", &asking(json!({"seed": seed, "n": 2}))).json()
        })
        .iter()
        .map(|answer| answer["id"].as_str().unwrap().to_owned())
        .collect();
    let vote = |body: Value| served.post_with_token("/v1/feedback", &body);
    for (body, kind) in [
        (json!({"completion_id": both[0], "index": 1, "rating": "up"}), "good"),
        (json!({"completion_id": both[0], "rating": -1, "comment": "no"}), "bad"),
        (json!({"completion_id": both[0], "correction": "5 .", "by": "me"}), "corrected"),
        (
            json!({"messages": [{"role": "user", "content": "a"}], "answer": "b", "comment": "c"}),
            "commented",
        ),
        (json!({"completion_id": both[0], "better_than_text": "nothing of it"}), "better"),
    ] {
        let reply = vote(body);
        assert_eq!((reply.status, &reply.json()["kind"]), (200, &kind.into()), "{}", reply.body);
    }
    for (body, wanted) in [
        (json!({"completion_id": "chatcmpl-none", "rating": "up"}), "no answer chatcmpl-none"),
        (json!({"completion_id": both[0]}), "says something"),
        (json!({"completion_id": both[0], "rating": "up", "correction": "a"}), "says one thing"),
        (json!({"completion_id": both[0], "index": 7, "rating": "up"}), "no answer 7"),
        (json!({"rating": "up"}), "what is voted on"),
        (json!({"completion_id": both[0], "rating": "sideways"}), "rating"),
    ] {
        let reply = vote(body);
        assert!(reply.status >= 400 && reply.body.contains(wanted), "{wanted}: {}", reply.body);
    }
    let told_now = served.get("/api/votes").json();
    let kinds = |votes: &Value| -> Vec<String> {
        let all = votes["votes"].as_array().unwrap();
        all.iter().map(|vote| vote["verdict"]["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&told_now), ["good", "bad", "corrected", "commented", "better"]);
    let page = served.get("/api/votes?limit=2").json();
    assert_eq!(kinds(&page), ["good", "bad"]);
    let rest = served.get(&format!("/api/votes?from={}", page["next"])).json();
    assert_eq!(kinds(&rest), ["corrected", "commented", "better"]);
    // They outlive the process.
    let (root, dir) = served.stop();
    let again = Served::of(root, dir, &[]);
    assert_eq!(again.get("/api/votes").json(), told_now);
    assert_eq!(told_now["counts"]["better"], 1);
}

#[test]
fn chats_become_prompts_where_the_settings_say_so() {
    let _alone = alone();
    let served =
        Served::start(&["--set", "intake.mode=prompts", "--set", "intake.redact=[\"[0-9]{4}\"]"]);
    let waiting = || served.get("/api/status").json()["prompts_waiting"].as_u64().unwrap();
    let before = waiting();
    let chat = |text: &str, extra: Value| {
        let mut asked = asking(extra);
        asked["messages"] = json!([{"role": "user", "content": text}]);
        assert_eq!(served.post("/v1/chat/completions", &asked).status, 200);
    };
    chat("add 7 and 1234 and 9 and 8 .", json!({}));
    assert_eq!(waiting(), before + 1);
    chat("add 7 and 4321 and 9 and 8 .", json!({}));
    assert_eq!(waiting(), before + 1, "without the numbers it is the same");
    chat("sort : q z b .", json!({"store": false}));
    assert_eq!(waiting(), before + 1, "a request may say no");
    let response = json!({"input": "sort : q z b .", "max_output_tokens": 4});
    assert_eq!(served.post("/v1/responses", &response).status, 200);
    assert_eq!(waiting(), before + 2);
    let listed = told(&["prompts", "list", "--state", "waiting"], &served.dir);
    let listed = listed.to_string();
    assert!(listed.contains("add 7 and [redacted] and 9 and 8 ."), "{listed}");
    assert!(!listed.contains("1234") && listed.contains("chat"), "{listed}");
}

#[test]
fn events_go_on_where_they_were_cut_off() {
    let _alone = alone();
    let served = Served::start(&[]);
    let records = served.get("/api/status").json()["records"].as_u64().unwrap();
    let listen = |path: &str, header: &str, count: usize| -> Vec<String> {
        let mut stream = TcpStream::connect(&served.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").unwrap();
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        lines.filter(|line| line.starts_with("id: ")).take(count).collect()
    };
    let ids = listen("/api/events?from=0", "", 5);
    assert_eq!(ids, ["id: 0", "id: 1", "id: 2", "id: 3", "id: 4"]);
    let ids = listen("/api/events", "Last-Event-ID: 4\r\n", 2);
    assert_eq!(ids, ["id: 5", "id: 6"]);
    let promoted = listen("/api/events?from=0&kind=checkpoint_promoted", "", 2);
    assert_eq!(promoted.len(), 2);
    // What happens now comes to who listens.
    let address = served.address.clone();
    let hears = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET /api/events?kind=vote_recorded HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        lines.find(|line| line.starts_with("data: ")).unwrap()
    });
    std::thread::sleep(Duration::from_millis(300));
    let vote =
        json!({"messages": [{"role": "user", "content": "a"}], "answer": "b", "rating": "up"});
    assert_eq!(served.post_with_token("/v1/feedback", &vote).status, 200);
    let heard = hears.join().unwrap();
    assert!(
        heard.contains("vote_recorded") && heard.contains(&format!("\"offset\":{records}")),
        "{heard}"
    );
}

#[test]
fn figures_are_told_as_prometheus_reads_them() {
    let _alone = alone();
    let served = Served::start(&[]);
    served.post("/v1/chat/completions", &asking(json!({})));
    let reply = served.get("/metrics");
    assert!(reply.head.contains("text/plain; version=0.0.4"), "{}", reply.head);
    let mut families = std::collections::BTreeMap::<&str, &str>::new();
    for line in reply.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name, kind).is_none(), "{name} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = base.filter(|base| families.contains_key(base)).unwrap_or(name);
            assert!(families.contains_key(family) && value.parse::<f64>().is_ok(), "{line}");
            let total = families[family] == "counter";
            assert_eq!(name.ends_with("_total"), total, "{line}");
        }
    }
    assert!(families.len() > 12, "{families:?}");
    let chats = "gradus_http_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1";
    assert!(reply.body.contains(chats), "{}", reply.body);
}

#[test]
fn the_page_is_whole_and_asks_nobody_else() {
    let _alone = alone();
    let served = Served::start(&[]);
    let page = served.get("/");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    for file in ["app.js", "style.css", "report.css"] {
        assert!(page.body.contains(&format!("page/{file}")), "{file}");
        assert_eq!(served.get(&format!("/page/{file}")).status, 200);
    }
    assert!(!page.body.contains("http://") && !page.body.contains("https://"));
    let script = served.get("/page/app.js").body;
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log/schema-2.jsonl");
    for line in std::fs::read_to_string(fixture).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let kind = event["type"].as_str().unwrap();
        assert!(script.contains(&format!("'{kind}'")), "the page does not listen for {kind}");
    }
    assert!(served.get("/api/figures").json()["figures"][0].as_str().unwrap().contains("<svg"));
    assert!(served.get("/api/report").json()["verdict"]["sentence"].is_string());
}

/// What programs are told is what is in the docs, and no route of it changes anything without the token.
#[test]
fn what_can_be_asked_is_told() {
    let _alone = alone();
    let served = Served::start(&[]);
    let told = served.get("/api/openapi.json").json();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let text = serde_json::to_string_pretty(&told).unwrap() + "\n";
    let known = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(known == text, "docs/openapi.json is of old: curl -s ADDRESS/api/openapi.json | jq .");
    let before = served.get("/api/status").json()["records"].clone();
    for (path, operations) in told["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if path == "/api/events" {
                continue;
            }
            let real = path.replace("{id}", "latest");
            let headers = ["Content-Type: application/json"];
            let body = if method == "post" { "{}" } else { "" };
            let reply = served.send(&method.to_uppercase(), &real, &headers, body);
            let wanted: &[u16] = match (operation["security"].is_array(), method.as_str()) {
                (true, _) => &[401],
                (false, "get") => &[200],
                (false, _) => &[400],
            };
            assert!(wanted.contains(&reply.status), "{method} {path}: {}", reply.body);
        }
    }
    assert_eq!(served.get("/api/status").json()["records"], before);
}

#[test]
fn what_cannot_be_served_is_said() {
    let _alone = alone();
    let served = Served::start(&[]);
    let refused = |arguments: &[&str]| {
        let mut command = gradus();
        let done = command.arg("serve").args(arguments).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&whole().dir(), &root.path().join("run"));
    let run = dir.to_str().unwrap();
    let taken = refused(&[run, "--listen", &served.address]);
    assert!(taken.contains("GRADUS1205") && taken.contains(&served.address), "{taken}");
    assert!(refused(&[run, "--listen", "nowhere"]).contains("GRADUS1205"));
    let open = refused(&[run, "--listen", "0.0.0.0:0", "--insecure-no-token"]);
    assert!(open.contains("GRADUS1203"), "{open}");
    let token = root.path().join("token");
    std::fs::write(&token, "0123456789abcdef").unwrap();
    let shared =
        refused(&[run, "--listen", "127.0.0.1:0", "--token-file", token.to_str().unwrap()]);
    assert!(shared.contains("chmod 600"), "{shared}");
    let none = refused(&[root.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(none.contains("GRADUS0703"), "{none}");
    assert_eq!(told(&["status"], &served.dir)["policy"], "M3", "the socket answers as before");
}
