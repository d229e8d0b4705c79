//! A client of a node that serves transactions, in plain text.

use seawall::txn::net::wire::coordinator_client::CoordinatorClient;
use seawall::txn::net::wire::participant_client::ParticipantClient;
use seawall::txn::net::wire::work_request::Request as Work;
use seawall::txn::net::wire::{self, begin};
use std::time::Duration;
use tonic::transport::Endpoint;

/// Writes a row; true once it was told to be committed.
pub(super) async fn put(address: &str, key: &str) -> bool {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let Ok(channel) = endpoint.timeout(Duration::from_secs(20)).connect().await else { return false };
    let mut service = CoordinatorClient::new(channel.clone());
    let Ok(txn) = service.begin(wire::BeginRequest {}).await else { return false };
    let txn = txn.into_inner();
    let requests = [
        Work::Begin(wire::Begin { name: Some(begin::Name::Txn(txn)), ..Default::default() }),
        Work::Put(wire::Put { keyspace: "rows".into(), key: key.to_owned().into(), value: "1".into() }),
        Work::End(wire::End {}),
    ];
    let requests = requests.map(|request| wire::WorkRequest { request: Some(request) });
    let Ok(replies) = ParticipantClient::new(channel).work(tokio_stream::iter(requests)).await else {
        return false;
    };
    let mut replies = replies.into_inner();
    loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    let request = wire::CommitRequest { txn: Some(txn), participants: vec![1] };
    let outcome = service.commit(request).await.map(|outcome| outcome.into_inner().state());
    matches!(outcome, Ok(wire::State::Committed))
}
