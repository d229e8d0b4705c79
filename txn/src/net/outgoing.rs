//! To one peer: a stream that is opened anew when it ends.

use super::wire::peers_client::PeersClient;
use super::wire::{Introduction, Parcel};
use super::{Shared, VERSION, count};
use crate::message::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// The first pause before connecting again, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a peer may take to greet.
const GREETING_MAX: Duration = Duration::from_secs(5);
/// So many messages share a parcel at most, and so many bytes or little more.
const PARCEL_MESSAGES: usize = 256;
const PARCEL_BYTES: usize = 256 << 10;
/// Parcels on their way to the connection: what is behind them waits in the peer's queue.
const PARCELS: usize = 4;

/// Until the queue's other end is gone, or everything stops.
pub(super) async fn run(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    mut messages: mpsc::Receiver<Message>,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = PAUSE_MIN;
    // Nobody is connected to before there is something to say.
    while let Some(first) = tokio::select! {
        first = messages.recv() => first,
        _ = stop.changed() => None,
    } {
        let talk = talk(&shared, &endpoint, first, &mut messages);
        let was_connected = tokio::select! {
            was_connected = talk => was_connected,
            _ = stop.changed() => return,
        };
        pause = if was_connected { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        // What comes meanwhile would be old by the time that it got there.
        let quiet = async {
            while messages.recv().await.is_some() {
                count(&shared.counters.dropped);
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = quiet => return,
            _ = stop.changed() => return,
        }
    }
}

/// One connection, from the first message to its end. True if there was one.
async fn talk(
    shared: &Shared,
    endpoint: &Endpoint,
    first: Message,
    messages: &mut mpsc::Receiver<Message>,
) -> bool {
    let Ok(channel) = endpoint.connect().await else {
        count(&shared.counters.dropped);
        return false;
    };
    let introduction = Introduction { version: VERSION, version_min: VERSION, from: shared.options.node.0 };
    let (parcels, stream) = mpsc::channel(PARCELS);
    let mut parcel = Parcel { introduction: Some(introduction), messages: vec![first.encode()] };
    let _ = parcels.try_send(std::mem::take(&mut parcel));
    let mut client = PeersClient::new(channel).max_encoding_message_size(shared.options.limits.request_bytes);
    let answer = timeout(GREETING_MAX, client.deliver(ReceiverStream::new(stream))).await;
    let Ok(Ok(answer)) = answer else {
        count(&shared.counters.dropped);
        return false;
    };
    let mut greetings = answer.into_inner();
    if !matches!(timeout(GREETING_MAX, greetings.message()).await, Ok(Ok(Some(_)))) {
        count(&shared.counters.dropped);
        return false;
    }
    count(&shared.counters.sent);
    count(&shared.counters.connected);
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            // The other side has ended it.
            _ = greetings.message() => return true,
        };
        let Some(message) = message else { return true };
        let mut bytes = vec![message.encode()];
        let mut sum = bytes.iter().map(Vec::len).sum::<usize>();
        while bytes.len() < PARCEL_MESSAGES && sum < PARCEL_BYTES {
            let Ok(message) = messages.try_recv() else { break };
            let encoded = message.encode();
            sum += encoded.len();
            bytes.push(encoded);
        }
        let sent = bytes.len() as u64;
        if parcels.send(Parcel { introduction: None, messages: bytes }).await.is_err() {
            return true;
        }
        shared.counters.sent.fetch_add(sent, std::sync::atomic::Ordering::Relaxed);
    }
}
