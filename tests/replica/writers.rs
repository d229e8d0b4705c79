//! Clients that write rows to whichever store is the primary, and know which were told to be committed.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use super::cluster::{CLIENT, Cluster, LONG, NAMES};
use seawall::replication::net::Credentials;
use seawall::txn::net::wire::coordinator_client::CoordinatorClient;
use seawall::txn::net::wire::participant_client::ParticipantClient;
use seawall::txn::net::wire::work_request::Request as Work;
use seawall::txn::net::wire::{self, begin};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const WRITERS: u32 = 4;
/// Longer than a commit waits for replicas, which is 10 s.
const ANSWER: Duration = Duration::from_secs(20);

/// What all of them know.
struct Shared {
    addresses: Vec<SocketAddr>,
    credentials: Option<Credentials>,
    primary: AtomicUsize,
    is_over: AtomicBool,
    count: AtomicU64,
    acknowledged: Mutex<BTreeSet<String>>,
    /// What was said last to somebody whose row was not acknowledged.
    refusal: Mutex<String>,
}

pub struct Writers {
    threads: Vec<std::thread::JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Writers {
    /// They write to this node until they are told of another, or to end.
    pub fn start(cluster: &Cluster, primary: usize) -> Writers {
        let shared = Arc::new(Shared {
            addresses: cluster.places.iter().map(|place| place.serves).collect(),
            credentials: cluster.authority.as_ref().map(|authority| authority.issue(CLIENT)),
            primary: AtomicUsize::new(primary),
            is_over: AtomicBool::new(false),
            count: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            refusal: Mutex::default(),
        });
        let write = |number| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.write(number))
        };
        Writers { threads: (0..WRITERS).map(write).collect(), shared }
    }

    /// Another one is the primary: what was not answered yet is left alone.
    pub fn turn_to(&self, primary: usize) {
        self.shared.primary.store(primary, Ordering::SeqCst);
    }

    /// How many rows were acknowledged.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::SeqCst)
    }

    /// Something goes on.
    #[track_caller]
    pub fn wait(&self, more: u64, cluster: &Cluster) {
        let (seen, begin) = (self.count(), Instant::now());
        while self.count() < seen + more {
            let refusal = || self.shared.refusal.lock().unwrap().clone();
            assert!(begin.elapsed() < LONG, "nothing commits: {}\n{}", refusal(), cluster.describe());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The rows that were acknowledged.
    pub fn end(self) -> BTreeSet<String> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut *self.shared.acknowledged.lock().unwrap())
    }
}

impl Shared {
    fn write(&self, number: u32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for row in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let key = format!("{number}-{row:06}");
            let primary = self.primary.load(Ordering::SeqCst);
            let told = runtime.block_on(async {
                tokio::select! {
                    told = self.put(primary, &key) => told,
                    () = self.turned_from(primary) => Err("turned away".to_owned()),
                }
            });
            match told {
                Ok(()) => {
                    self.acknowledged.lock().unwrap().insert(key);
                    self.count.fetch_add(1, Ordering::SeqCst);
                }
                Err(why) => {
                    *self.refusal.lock().unwrap() = why;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    async fn turned_from(&self, primary: usize) {
        let stays = || self.primary.load(Ordering::SeqCst) == primary && !self.is_over.load(Ordering::SeqCst);
        while stays() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn connect(&self, node: usize) -> Result<Channel, String> {
        let address = self.addresses[node];
        let scheme = if self.credentials.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).unwrap().timeout(ANSWER);
        if let Some(Credentials { certificate, key, authority }) = &self.credentials {
            let tls = ClientTlsConfig::new()
                .identity(Identity::from_pem(certificate, key))
                .ca_certificate(Certificate::from_pem(authority))
                .domain_name(format!("{}.test", NAMES[node]));
            endpoint = endpoint.tls_config(tls).unwrap();
        }
        endpoint.connect().await.map_err(|error| format!("connecting: {error:?}"))
    }

    /// Whether it was told to be committed, or else what was said.
    async fn put(&self, node: usize, key: &str) -> Result<(), String> {
        let met = |step: &'static str| move |error: tonic::Status| format!("{step}: {error:?}");
        let channel = self.connect(node).await?;
        let mut service = CoordinatorClient::new(channel.clone());
        let txn = service.begin(wire::BeginRequest {}).await.map_err(met("begin"))?.into_inner();
        let requests = [
            Work::Begin(wire::Begin { name: Some(begin::Name::Txn(txn)), ..Default::default() }),
            Work::Put(wire::Put { keyspace: "rows".into(), key: key.to_owned().into(), value: "1".into() }),
            Work::End(wire::End {}),
        ];
        let requests = requests.map(|request| wire::WorkRequest { request: Some(request) });
        let replies = ParticipantClient::new(channel).work(tokio_stream::iter(requests)).await;
        let mut replies = replies.map_err(met("work"))?.into_inner();
        while replies.message().await.map_err(met("working"))?.is_some() {}
        let request = wire::CommitRequest { txn: Some(txn), participants: vec![1] };
        let outcome = service.commit(request).await.map_err(met("commit"))?.into_inner();
        match outcome.state() {
            wire::State::Committed => Ok(()),
            state => Err(format!("commit: {state:?}")),
        }
    }
}
