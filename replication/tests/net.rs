//! A primary and replicas by gRPC over loopback: who is let in, what comes through, and what an image is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "net/certificates.rs"]
mod certificates;
mod stores;

use bytes::Bytes;
use certificates::Authority;
use seawall_engine::Ack;
use seawall_replication::message::Message;
use seawall_replication::net::wire::Parcel;
use seawall_replication::net::wire::replication_client::ReplicationClient;
use seawall_replication::net::{Credentials, Remote, RemoteOptions, Roles, Security, Server, ServerOptions};
use seawall_replication::node::{Dialler, Ear, Follower, Host, ImageSource, Status, Stretch, Wire};
use seawall_replication::ship::replica::State;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stores::{LONG, Store, leader, options, replica_of};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn roles() -> Roles {
    Roles { replicas: vec!["one.test".into(), "two.test".into()], operators: vec!["operator.test".into()] }
}

fn serve(authority: &Authority, host: Arc<dyn Host>) -> Server {
    let security = Security::MutualTls(authority.issue("primary.test"));
    Server::bind(ServerOptions::new(loopback(), security, roles()), host).unwrap()
}

fn remote(credentials: Credentials, address: SocketAddr) -> Arc<Remote> {
    let options = RemoteOptions {
        addresses: vec![address.to_string()],
        name: "primary.test".into(),
        security: Security::MutualTls(credentials),
    };
    Arc::new(Remote::new(&options).unwrap())
}

#[test]
fn replicas_follow_over_tls_and_commits_wait_for_them() {
    let authority = Authority::new();
    let primary = Store::primary(1, Ack::Durable);
    let (one, two) = (replica_of(&primary, 2), replica_of(&primary, 3));
    let host = leader(&primary, Some("ANY 2 (one, two)"));
    let server = serve(&authority, Arc::new(host.clone()));
    let follow = |store: &Store, name: &str| {
        let to = remote(authority.issue(&format!("{name}.test")), server.address());
        Follower::run(&store.db.shipping(), to, options(name)).unwrap()
    };
    let followers = [follow(&one, "one"), follow(&two, "two")];
    assert!(followers.iter().all(|of| of.wait_state(|state| *state == State::Following, LONG)));
    primary.write(0..500);
    let visible = primary.db.shipping().visible();
    for store in [&one, &two] {
        assert!(store.db.shipping().wait_visible(visible, LONG).unwrap());
        assert_eq!(store.rows(), primary.rows());
    }
    // The operator sees them; a replica may not ask.
    let status = remote(authority.issue("operator.test"), server.address()).status().unwrap();
    assert_eq!(status.followers.len(), 2);
    assert!(
        status.followers.iter().all(|of| of.is_connected && of.durable >= visible.0 && of.part == "quorum")
    );
    let refused = remote(authority.issue("one.test"), server.address()).status().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    // The server goes, and comes back elsewhere: the replicas wait for it.
    drop(server);
    assert!(followers.iter().all(|of| of.wait_state(|state| matches!(state, State::Waiting { .. }), LONG)));
}

/// Little pieces are written down by the network's thread, large ones by the log's; so is what the disk has no room for.
#[test]
fn a_disk_that_is_full_for_a_while_holds_up_nothing_else() {
    let authority = Authority::new();
    let primary = Store::primary(1, Ack::Durable);
    let one = replica_of(&primary, 2);
    let server = serve(&authority, Arc::new(leader(&primary, Some("ANY 1 (one)"))));
    let to = remote(authority.issue("one.test"), server.address());
    let follower = Follower::run(&one.db.shipping(), to, options("one")).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG), "{follower:?}");
    let rows = primary.db.open_keyspace("rows").unwrap().unwrap();
    for round in 0..4 {
        primary.write(round * 100..round * 100 + 50);
        one.disk.set_capacity(1);
        // Until a segment's file is needed that there is no room for.
        let mut waits = false;
        for row in 0..200 {
            let value = vec![b'x'; if row % 3 == 0 { 100_000 } else { 1_000 }];
            waits = rows.insert(format!("large {row:03}"), value).is_err();
            if waits {
                break;
            }
        }
        assert!(waits, "the replica has no room, and acknowledges all the same");
        assert_eq!(follower.state(), State::Following, "{follower:?}");
        one.disk.set_capacity(u64::MAX);
        let visible = || primary.db.shipping().visible();
        let end = primary.db.shipping().wal().durable_lsn();
        let started = Instant::now();
        while visible() < end {
            assert!(started.elapsed() < LONG, "{follower:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(one.db.shipping().wait_visible(visible(), LONG).unwrap());
        assert_eq!(one.rows(), primary.rows());
    }
    follower.stop();
    assert!(one.db.shipping().wal().durable_lsn() >= primary.db.shipping().visible());
}

/// A node from before that way was there is followed by gRPC.
#[test]
fn an_older_node_is_followed_all_the_same() {
    let authority = Authority::new();
    let primary = Store::primary(1, Ack::Durable);
    let one = replica_of(&primary, 2);
    let security = Security::MutualTls(authority.issue("primary.test"));
    let mut older = ServerOptions::new(loopback(), security, roles());
    older.direct = false;
    let server = Server::bind(older, Arc::new(leader(&primary, Some("ANY 1 (one)")))).unwrap();
    let to = remote(authority.issue("one.test"), server.address());
    let follower = Follower::run(&one.db.shipping(), to, options("one")).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG), "{follower:?}");
    primary.write(0..100);
    assert!(one.db.shipping().wait_visible(primary.db.shipping().visible(), LONG).unwrap());
    assert_eq!(one.rows(), primary.rows());
}

/// Another authority from now on: connections that there are stay, and new ones are of its kind alone.
#[test]
fn certificates_are_renewed_without_an_end_of_what_goes_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let primary = Store::primary(1, Ack::Durable);
    let (one, two) = (replica_of(&primary, 2), replica_of(&primary, 3));
    let server = serve(&old, Arc::new(leader(&primary, Some("ANY 1 (one, two)"))));
    let to = remote(old.issue("one.test"), server.address());
    let first = Follower::run(&one.db.shipping(), to.clone(), options("one")).unwrap();
    assert!(first.wait_state(|state| *state == State::Following, LONG), "{first:?}");
    let begun = first.link().sessions;
    let empty = Credentials { certificate: vec![], key: vec![], authority: vec![] };
    assert!(server.renew(&empty).is_err() && to.renew(empty).is_err());
    server.renew(&new.issue("primary.test")).unwrap();
    primary.write(0..100);
    assert_eq!(first.link().sessions, begun, "it goes on");
    let next = remote(old.issue("two.test"), server.address());
    let second = Follower::run(&two.db.shipping(), next.clone(), options("two")).unwrap();
    assert!(!second.wait_state(|state| *state == State::Following, Duration::from_millis(300)));
    next.renew(new.issue("two.test")).unwrap();
    assert!(second.wait_state(|state| *state == State::Following, LONG), "{second:?}");
    let operator = remote(new.issue("operator.test"), server.address());
    assert_eq!(operator.status().unwrap().followers.len(), 2);
}

#[test]
fn who_may_not_is_refused() {
    [true, false].into_iter().for_each(refuses_who_may_not);
}

fn refuses_who_may_not(direct: bool) {
    let authority = Authority::new();
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let mut options_of =
        ServerOptions::new(loopback(), Security::MutualTls(authority.issue("primary.test")), roles());
    options_of.direct = direct;
    let server = Server::bind(options_of, Arc::new(leader(&primary, None))).unwrap();
    let never_follows = |credentials: Credentials, name: &str| {
        let to = remote(credentials, server.address());
        let follower = Follower::run(&one.db.shipping(), to, options(name)).unwrap();
        assert!(
            !follower.wait_state(|state| *state == State::Following, Duration::from_millis(400)),
            "{name}"
        );
    };
    never_follows(authority.issue("stranger.test"), "stranger");
    never_follows(authority.issue("operator.test"), "operator");
    never_follows(Authority::new().issue("one.test"), "one");
    // In another's name it could acknowledge for it.
    never_follows(authority.issue("two.test"), "one");
    let primary_only = Security::PlainText { anywhere: false };
    let anywhere = ServerOptions::new("0.0.0.0:0".parse().unwrap(), primary_only, roles());
    let refused = Server::bind(anywhere, Arc::new(leader(&primary, None))).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    let empty = Credentials { certificate: vec![], key: vec![], authority: vec![] };
    let options = ServerOptions::new(loopback(), Security::MutualTls(empty), roles());
    assert!(Server::bind(options, Arc::new(leader(&primary, None))).is_err());
}

/// What is no message, too much, or out of turn ends its own connection and nothing else.
#[test]
fn what_makes_no_sense_ends_its_own_connection() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let plain = || Security::PlainText { anywhere: false };
    let server =
        Server::bind(ServerOptions::new(loopback(), plain(), roles()), Arc::new(leader(&primary, None)));
    let server = server.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = format!("http://{}", server.address());
    let parcel = |head: Vec<u8>, body: Vec<u8>| Parcel { head: head.into(), body: body.into() };
    let marks = Message::Marks(Default::default()).encode().to_vec();
    for bad in [
        parcel(vec![], vec![]),
        parcel(vec![0; 40], vec![]),
        parcel(vec![1, 200], vec![]),
        parcel(Message::Bye.encode().to_vec(), vec![1]),
        parcel(vec![7; 100_000], vec![]),
        parcel(marks, vec![]),
        parcel(Message::Heartbeat(Default::default()).encode().to_vec(), vec![]),
    ] {
        runtime.block_on(async {
            let mut client = ReplicationClient::connect(address.clone()).await.unwrap();
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            sender.send(bad).await.unwrap();
            let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let Ok(answer) = client.follow(stream).await else { return };
            let mut answers = answer.into_inner();
            let end = async { while let Ok(Some(_)) = answers.message().await {} };
            tokio::time::timeout(LONG, end).await.unwrap();
        });
    }
    let options_of = RemoteOptions {
        addresses: vec![server.address().to_string()],
        name: String::new(),
        security: plain(),
    };
    let to = Arc::new(Remote::new(&options_of).unwrap());
    let follower = Follower::run(&one.db.shipping(), to, options("one")).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG));
}

#[test]
fn of_several_addresses_the_one_that_serves_is_found() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let plain = || Security::PlainText { anywhere: false };
    // A replica answers for itself, and ships nothing on.
    let other = replica_of(&primary, 3);
    let idle = Follower::run(&other.db.shipping(), Arc::new(Nowhere), options("other")).unwrap();
    let host = Server::bind(ServerOptions::new(loopback(), plain(), roles()), Arc::new(idle)).unwrap();
    let server =
        Server::bind(ServerOptions::new(loopback(), plain(), roles()), Arc::new(leader(&primary, None)));
    let server = server.unwrap();
    let addresses = ["127.0.0.1:1".to_owned(), host.address().to_string(), server.address().to_string()];
    let to =
        Remote::new(&RemoteOptions { addresses: addresses.to_vec(), name: String::new(), security: plain() });
    let follower = Follower::run(&one.db.shipping(), Arc::new(to.unwrap()), options("one")).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG));
}

/// Who is spoken to and refuses is not asked again and again while another would serve.
#[test]
fn one_that_refuses_is_not_all_that_is_asked() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let plain = || Security::PlainText { anywhere: false };
    let serve = |store: &Store| {
        Server::bind(ServerOptions::new(loopback(), plain(), roles()), Arc::new(leader(store, None))).unwrap()
    };
    // It has promised an epoch to come, and follows nobody of it yet.
    let other = replica_of(&primary, 3);
    other.db.shipping().fence(1).unwrap();
    let (refuses, serves) = (serve(&other), serve(&primary));
    let addresses = [&refuses, &serves].map(|server| server.address().to_string());
    let to =
        Remote::new(&RemoteOptions { addresses: addresses.to_vec(), name: String::new(), security: plain() });
    let follower = Follower::run(&one.db.shipping(), Arc::new(to.unwrap()), options("one")).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG), "{follower:?}");
}

/// As of a machine whose network is gone: connections to it are made, or begun, and nothing is said.
#[test]
fn one_that_says_nothing_holds_nobody_up() {
    let authority = Authority::new();
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve(&authority, Arc::new(leader(&primary, None)));
    let to = |addresses: &[SocketAddr]| {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let security = Security::MutualTls(authority.issue("one.test"));
        let options = RemoteOptions { addresses, name: "primary.test".into(), security };
        Arc::new(Remote::new(&options).unwrap())
    };
    let silent = listener.local_addr().unwrap();
    let started = Instant::now();
    let both = to(&[silent, server.address()]);
    let follower = Follower::run(&one.db.shipping(), both, options("one")).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG), "{follower:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    drop(follower);
    // Whoever is to be promoted does not wait for it either.
    let follower = Follower::run(&one.db.shipping(), to(&[silent]), options("one")).unwrap();
    assert!(follower.wait_state(|state| *state == State::Dialling, LONG), "{follower:?}");
    std::thread::sleep(Duration::from_millis(100));
    let stopped = Instant::now();
    follower.stop();
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
}

struct Nowhere;

impl Dialler for Nowhere {
    fn dial(&self, _: Arc<dyn Ear>, _: bool) -> io::Result<Arc<dyn Wire>> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// Gives away an image of made-up bytes, with holes.
struct Giving {
    status: Status,
    fails: Arc<AtomicBool>,
}

const IMAGE_BYTES: u64 = 5 << 20;

fn made_up(offset: u64, length: usize) -> Bytes {
    (offset..offset + length as u64).map(|at| (at / 4096 * 31 + at % 251) as u8).collect::<Vec<u8>>().into()
}

impl Host for Giving {
    fn connected(&self, _: Option<Vec<String>>, _: Arc<dyn Wire>) -> Option<Arc<dyn Ear>> {
        None
    }

    fn status(&self) -> Status {
        self.status.clone()
    }

    fn image(&self, _: &[u8]) -> io::Result<Box<dyn ImageSource>> {
        Ok(Box::new(Source(Arc::clone(&self.fails))))
    }
}

struct Source(Arc<AtomicBool>);

impl ImageSource for Source {
    fn about(&self) -> Bytes {
        Bytes::from_static(b"generation 7")
    }

    fn read(&mut self, from: u64, bytes_max: usize) -> io::Result<Option<Stretch>> {
        if from >= 2 << 20 && self.0.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        // Between 1 and 2 MiB there is nothing in use.
        let offset = if (1 << 20..2 << 20).contains(&from) { 2 << 20 } else { from };
        let length = (IMAGE_BYTES.saturating_sub(offset) as usize).min(bytes_max).min(1 << 20);
        Ok((length > 0).then(|| Stretch { offset, bytes: made_up(offset, length) }))
    }
}

#[test]
fn an_image_comes_in_parts_goes_on_where_it_stopped_and_no_faster_than_it_may() {
    let authority = Authority::new();
    let primary = Store::primary(1, Ack::Local);
    let status = leader(&primary, None).status();
    let fails = Arc::new(AtomicBool::new(true));
    let server = serve(&authority, Arc::new(Giving { status, fails }));
    let to = remote(authority.issue("two.test"), server.address());
    let mut images = to.image(Bytes::new(), 0, 0).unwrap();
    let about = images.about().clone();
    let mut end = 0;
    let error = loop {
        match images.next_part() {
            Ok(Some(part)) => {
                assert_eq!(part.bytes, made_up(part.offset, part.bytes.len()));
                end = part.offset + part.bytes.len() as u64;
            }
            Ok(None) => panic!("it was to fail"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("on fire"), "{error}");
    assert_eq!(end, 3 << 20);
    let started = Instant::now();
    let mut images = to.image(about.clone(), end, 10 << 20).unwrap();
    assert_eq!(images.about(), &about);
    let mut offsets = Vec::new();
    while let Some(part) = images.next_part().unwrap() {
        assert_eq!(part.bytes, made_up(part.offset, part.bytes.len()));
        offsets.push(part.offset);
    }
    assert_eq!(offsets, [3 << 20, 4 << 20]);
    assert!(started.elapsed() >= Duration::from_millis(190), "2 MiB at 10 MiB/s: {:?}", started.elapsed());
    // Of another image nothing is gone on with.
    let first = to.image(Bytes::from_static(b"generation 6"), end, 0).unwrap().next_part().unwrap().unwrap();
    assert_eq!(first.offset, 0);
    // A store that gives none says so.
    let plain = serve(&authority, Arc::new(leader(&primary, None)));
    let none = remote(authority.issue("two.test"), plain.address()).image(Bytes::new(), 0, 0).unwrap_err();
    assert_eq!(none.kind(), io::ErrorKind::Unsupported);
}
