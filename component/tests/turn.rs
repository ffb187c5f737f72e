//! Generations that take turns in one thread: the demo model says to each what it says to it alone.

use std::cell::Cell;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use http::Request;
use serde_json::{Value, json};
use wafer_component::api::{self, Reply};
use wafer_component::platform::Platform;
use wafer_component::service::Service;
use wafer_component::turn::turn;

struct Still;

impl Platform for Still {
    fn seconds(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        0
    }

    fn pause(&self) {}

    fn log(&self, line: &str) {
        panic!("{line}");
    }
}

/// Lets every other task run once.
struct Others(bool);

impl Future for Others {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn service() -> &'static Service {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.gguf");
    Box::leak(Box::new(Service::load(&path, None, None).expect("the demo model is loaded")))
}

fn reply(service: &'static Service, body: &Value) -> Reply<'static> {
    let request = Request::post("/v1/completions").body(body.to_string().into_bytes()).expect("a request");
    api::handle(&request, &|| Ok(service), &Still)
}

/// The whole body, with steps that are taken in turn with others; `waits` turns are missed after each piece, as with
/// a client that reads slowly. Without a piece left, `leaves` decides whether the task goes away.
async fn read(mut reply: Reply<'static>, waits: usize, leaves_after: usize) -> String {
    let mut body = Vec::new();
    match &mut reply {
        Reply::Full(response) => body.append(response.body_mut()),
        Reply::Whole(whole) => loop {
            turn(whole, || Others(false)).await;
            if let Some(response) = whole.step() {
                body = response.into_body();
                break;
            }
        },
        Reply::Stream(stream) => loop {
            turn(stream, || Others(false)).await;
            let Some(piece) = stream.step() else { break };
            body.extend(piece);
            for _ in 0..waits {
                Others(false).await;
            }
            if body.len() > leaves_after {
                break;
            }
        },
    }
    String::from_utf8(body).expect("UTF-8")
}

/// A request, the turns that its client misses after each piece, and the bytes after which it leaves.
type Client = (Value, usize, usize);

/// Every client gets what it gets alone, or the beginning of it if it leaves.
fn check(clients: &[Client]) {
    let service = service();
    let finished = Rc::new(Cell::new(0));
    let mut pool = LocalPool::new();
    for (body, waits, leaves) in clients {
        let (_, pieces) = reply(service, body).into_parts();
        let alone = String::from_utf8(pieces.flatten().collect()).expect("UTF-8");
        let (reply, finished, waits, leaves) = (reply(service, body), finished.clone(), *waits, *leaves);
        let task = async move {
            let text = read(reply, waits, leaves).await;
            assert!(alone.starts_with(&text) && (text == alone || text.len() > leaves), "{text}\n{alone}");
            finished.set(finished.get() + 1);
        };
        pool.spawner().spawn_local(task).expect("the pool takes tasks");
    }
    pool.run();
    assert_eq!(finished.get(), clients.len());
}

fn body(prompt: &str, tokens: usize, stream: bool) -> Value {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0.8, "seed": 7, "stream": stream})
}

#[test]
fn everyone_gets_the_text_that_they_get_alone() {
    let long = "The fox and the owl were friends. ".repeat(30);
    check(&[
        (body("Once upon a time", 40, true), 0, usize::MAX),
        (body("Once upon a time", 40, false), 0, usize::MAX),
        (body(&long, 20, true), 0, usize::MAX),
        (body("A dog", 30, true), 3, usize::MAX),
        (body(&long, 10, false), 0, usize::MAX),
        (body("One day", 40, true), 0, 900),
        (json!({"prompt": ["Tom", "Mia", &long], "max_tokens": 9, "temperature": 0}), 0, usize::MAX),
    ]);
}
