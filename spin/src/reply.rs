//! From a reply of the API to a response of spin-sdk.
//!
//! Between two steps a task lets the others run. A streamed body has room for some pieces: a client that reads
//! slowly fills it, and its generation waits, while others go on. A client that is gone closes it, which ends the
//! generation.

use std::convert::Infallible;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use spin_sdk::http::{BoxBody, Response, box_body};
use spin_sdk::wit_bindgen::{spawn, yield_async};
use wafer_component::adapter::Wasi;
use wafer_component::api::{self, Reply, Stream, Whole};
use wafer_component::platform::Platform;
use wafer_component::turn::turn;

use crate::cache::Cache;
use crate::places::Place;
use crate::settings::Settings;

/// Pieces of a stream that are computed ahead of its client.
const AHEAD: usize = 16;
/// Says that an answer was kept from an earlier request.
const FROM_CACHE: HeaderName = HeaderName::from_static("x-wafer-cache");

/// Sends a reply; what would be computed may come from the cache instead.
pub(crate) async fn send(path: &str, reply: Reply<'static>, settings: &Settings) -> Response<BoxBody> {
    match reply {
        Reply::Full(response) => full(response),
        Reply::Whole(whole) => match &settings.cache {
            Some(cache) => cached(path, whole, settings, cache).await,
            None => full(computed(whole).await),
        },
        Reply::Stream(stream) => streamed(stream),
    }
}

/// Sends a reply that is there already.
pub(crate) fn full(response: http::Response<Vec<u8>>) -> Response<BoxBody> {
    let (head, body) = api::split(response);
    head.map(|()| box_body(Full::new(Bytes::from(body))))
}

async fn cached(path: &str, whole: Whole<'static>, settings: &Settings, cache: &Cache) -> Response<BoxBody> {
    let name = match (whole.identity(), settings.service()) {
        (Some(identity), Ok(service)) => Cache::name(service, path, &identity),
        _ => None,
    };
    let Some(name) = name else { return full(computed(whole).await) };
    if let Some(answer) = cache.find(&name).await {
        let mut response = full(api::answered(answer));
        response.headers_mut().insert(FROM_CACHE, HeaderValue::from_static("hit"));
        return response;
    }
    let response = computed(whole).await;
    if response.status() == StatusCode::OK {
        cache.keep(&name, response.body()).await;
    }
    full(response)
}

async fn computed(mut whole: Whole<'static>) -> http::Response<Vec<u8>> {
    let _place = Place::take().await;
    loop {
        turn(&mut whole, others).await;
        if let Some(response) = whole.step() {
            return response;
        }
    }
}

fn streamed(mut stream: Stream<'static>) -> Response<BoxBody> {
    let (mut sender, receiver) = mpsc::channel(AHEAD);
    spawn(async move {
        let _place = Place::take().await;
        loop {
            turn(&mut stream, others).await;
            match stream.step() {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => {
                    if sender.send(piece).await.is_err() {
                        return Wasi.log("generation cancelled: client went away");
                    }
                }
                None => return,
            }
        }
    });
    let frames = receiver.map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
    Stream::head().map(|()| box_body(StreamBody::new(frames)))
}

/// Lets other requests run, and from time to time the host.
async fn others() {
    Wasi.pause();
    // The futures of a request are polled together, and the first yield of one may only lead to its being polled again.
    yield_async().await;
    yield_async().await;
}
